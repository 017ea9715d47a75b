"""The drills as the server knows them: who may drill, what ran, which of our faults were a drill's."""
