"""The messages of every topic and the task as submitted, as models.

The signed envelope around them is the core's.
"""
