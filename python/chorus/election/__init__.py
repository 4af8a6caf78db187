"""The process that finds or founds the mesh, decides who votes, and hands leadership over.

Raft decides who leads.
"""
