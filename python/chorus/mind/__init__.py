"""Process: models, the autonomous loop, words for HMMM (the agents' talk about plans)."""
