"""The part of drills that runs on a host, within its node process."""
