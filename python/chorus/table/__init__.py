"""The mesh's one table: entries, pure transitions, the SQLite store that the coordinator writes and all
others read.
"""
