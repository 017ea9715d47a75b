"""What dead tools left: faults undone, histories closed, reports sent."""
