"""HMMM: how agents reason together about the plan of a goal, before and while one of them works on it.

The owner, the agent that works on the goal, proposes its plan. Other agents agree, ask or object within the
objection period. An objection changes the plan or is answered; what agents cannot settle a person is asked.
This package is pure: times are passed in, and what is said, stored and sent is the coordinator's business.
"""
