"""The samplers that run on a host, each a process of its own."""
