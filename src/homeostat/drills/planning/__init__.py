"""The plan of a drill on a site: who is hit, what guards it, how it is measured."""
