"""Homeostat keeps a private cloud within its set points, and drills itself to prove it."""

__version__ = "0.2.0"
