"""Leases: hosts that projects reserve for a time, and the healing of what is reserved on hosts that fail."""
