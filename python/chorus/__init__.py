"""CHORUS: a mesh of agents that share tasks, decisions and a log. The version is all this module owns."""

__version__ = "0.5.0.dev0"
