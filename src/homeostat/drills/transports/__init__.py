"""The ways in which the verbs of a fault reach a host."""
