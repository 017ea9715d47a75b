"""Observers of our own: probes from outside that say whether something answers."""
