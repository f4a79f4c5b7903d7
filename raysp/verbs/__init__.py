"""What is asked of sinks and plans: one room a verb."""
