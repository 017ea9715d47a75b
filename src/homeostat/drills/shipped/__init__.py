"""Files that are sent to hosts without Homeostat: standard library only, any python3 from 3.9."""
