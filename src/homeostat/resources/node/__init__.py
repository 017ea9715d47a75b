"""The runner: what keeps the OCF resources of one host, as a process below the node process."""
