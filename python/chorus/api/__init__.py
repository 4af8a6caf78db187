"""The api process: the agent's HTTP surface and its probes. It decides nothing: it reads and asks."""
