"""The curator: a full-text index of what this agent may read, and what of it matters for a task."""
