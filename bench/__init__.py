"""Measurements of CHORUS, each beside a peer in the same run: ratios travel, figures do not."""
