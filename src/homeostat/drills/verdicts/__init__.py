"""From frozen records to rows and a verdict. Pure: an old run is judged again by the same functions."""
