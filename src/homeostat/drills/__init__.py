"""The drills room: break something on purpose, measure what it cost, say PASS only when proven."""
