"""Watches that are sent to hosts without Homeostat: standard library only."""
