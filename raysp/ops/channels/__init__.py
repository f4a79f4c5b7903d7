"""Channels of recordings that are labelled each as a recording of its own: their windows, numbers and joining."""
