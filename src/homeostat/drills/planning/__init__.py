"""From a drill and a site to what will exactly be done: who is hit, what guards it, how it is measured."""
