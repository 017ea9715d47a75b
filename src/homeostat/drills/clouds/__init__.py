"""The cloud that a drill's operations use: what is asked of it, and openstacksdk as its driver."""
