"""The coordinator's part in HMMM, in which agents reason together about the plan of a goal.

Sessions are kept by every agent that hears them; the rules of a session are `chorus.hmmm.session`.
"""
