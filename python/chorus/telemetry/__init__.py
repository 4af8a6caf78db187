"""BACKBEAT, the telemetry around a mesh: a pulse of beats that agents keep in step with, what they do at each
beat, and how long the phases of their operations take. Off unless it is asked for (docs/backbeat.md).
"""
