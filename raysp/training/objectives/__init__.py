"""Objectives of training: the models they begin with, and their losses."""
