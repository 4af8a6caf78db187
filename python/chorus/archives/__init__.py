"""Tar archives from outside: read with bounds, checked, cleaned and unpacked, by a child process with limits.

Where archives come from and where they go is left to others. What the child runs imports nothing outside the
standard library.
"""
