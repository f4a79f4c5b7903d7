"""Training of models: objectives, schedules, optimisation, and the loop over steps. Only `on_ray` imports ray."""
