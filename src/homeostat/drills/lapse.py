"""The lapse of a drill's claim on its site when nobody renews it, the same for server and tool."""

LAPSE_S = 15.0
"""A tool renews every second. Shorter, and the start of another server would end drills; longer, and the next
one waits for a dead tool for as long."""
