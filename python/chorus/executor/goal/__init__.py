"""The executor's side of a goal: its journal, the tools of its sandbox, its patch and its checks."""
