"""What people and machines read of a run. Renderings of one model; nothing is decided here."""
