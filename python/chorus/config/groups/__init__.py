"""The declarations of all settings, one file for each group of them."""
