"""Sandboxes in Docker Engine: containers, sessions, and what their ends mean."""
