"""The sink of a training: committed steps."""
