"""What a drill file says, and what is wrong with it by line. Pure, but for the reading of files."""
