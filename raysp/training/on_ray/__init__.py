"""Workers of a training on Ray: their start and restart, the rows that they read, and their shared state."""
