"""The content of drill files, and their errors by line. Pure, but for the reading of files."""
