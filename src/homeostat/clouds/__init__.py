"""Drivers of the port `Cloud`: what shows tenants that a host is down and their guests are in error."""
