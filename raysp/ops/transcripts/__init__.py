"""Texts, times and scores from the searches of models."""
