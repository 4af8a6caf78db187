"""The repositories' own tests are no tests of ours: they fail."""

collect_ignore_glob = ["*/files"]
