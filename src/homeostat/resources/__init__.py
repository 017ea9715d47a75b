"""Right deadlines: OCF agents, and resources kept running on their host."""
