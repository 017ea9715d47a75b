"""The verdict of a run and its rows, from frozen records. Pure: an old run is judged by the same code."""
