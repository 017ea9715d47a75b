"""The machines: which hosts and resources exist, where they run, and who is silent."""
