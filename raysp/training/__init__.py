"""Training of models: objectives, schedules, optimisation, and the loop over steps. It imports torch, and no ray."""
