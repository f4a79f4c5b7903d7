"""Tasks of trainings: everything that depends on the objective of a recipe."""
