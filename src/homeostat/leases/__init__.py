"""Reservations of hosts and parts of hosts: kept by planning replacements, or explained where none exists."""
