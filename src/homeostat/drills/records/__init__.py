"""What a run writes down: facts, undos, the history; and what a verdict may rest on. No judgement."""
