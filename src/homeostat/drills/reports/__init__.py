"""Reports of runs for people and machines. Renderings of one model; nothing is decided here."""
