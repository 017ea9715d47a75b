"""What rooms and processes know of each other: nouns, published events, server-node messages. No I/O."""
