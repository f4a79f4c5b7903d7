"""Plans of trainings."""
