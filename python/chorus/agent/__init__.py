"""The parent of one agent: command line, start-up checks, supervisord and its programs, signals and drain."""
