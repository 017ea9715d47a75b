"""Fast truth: from an observation to a fault, the people affected, and their notices."""
