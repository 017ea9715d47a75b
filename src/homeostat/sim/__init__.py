"""The simulator: the real loops in virtual time, among seeded misfortune, and the checkers of the invariants."""
