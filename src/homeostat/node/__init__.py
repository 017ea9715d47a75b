"""The node process: one per host, a small supervisor of role processes."""
