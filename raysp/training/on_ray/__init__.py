"""Trainings: the run of a recipe, from the index of its corpus to the exported checkpoint."""
