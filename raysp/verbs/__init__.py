"""Verbs over sinks and plans, one folder each."""
