"""The one write path: what nodes and loops say becomes one entry, one transaction, then replies."""
