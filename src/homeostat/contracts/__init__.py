"""Nouns, published events and messages that components and processes share. No I/O."""
