"""The control plane: API, dashboard and loops in one process."""
