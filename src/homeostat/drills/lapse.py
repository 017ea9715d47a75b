"""How long a drill's claim on its site stands unrenewed, as its server and the tool have agreed."""

LAPSE_S = 15.0
"""A tool renews every second. Shorter, and the start of another server would end drills; longer, and the next
one waits for a dead tool for as long."""
