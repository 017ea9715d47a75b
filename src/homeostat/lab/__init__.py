"""The embedded cluster of `homeostat up`: real processes, real signals, real files."""
