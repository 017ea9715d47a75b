"""How the verbs of a fault reach a host."""
