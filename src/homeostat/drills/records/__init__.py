"""The records of a run: facts, undos, the history; all that a verdict may rest on. No judgement."""
