"""One run: monitors, the fault, a user's operations, the end; every step written down before it is done."""
