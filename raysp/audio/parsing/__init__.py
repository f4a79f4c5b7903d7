"""Parsers of the bytes of containers: where streams, samples, frames and tags begin and end."""
