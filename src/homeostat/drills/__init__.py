"""Proof: break something on purpose, measure the outage with error bounds, judge, undo."""
