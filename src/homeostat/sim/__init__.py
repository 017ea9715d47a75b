"""The simulator: the real loops in virtual time among seeded misfortune, and the invariants' checkers."""
