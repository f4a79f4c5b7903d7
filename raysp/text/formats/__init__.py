"""Formats of labels that other tools read: values in, text out."""
