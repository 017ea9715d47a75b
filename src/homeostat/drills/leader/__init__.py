"""What the server knows of drills: who may drill, what ran, which of our faults were a drill's."""
