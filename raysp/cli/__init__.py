"""The command line: one function a verb, one file a group of verbs. The only place that prints."""

from raysp.cli.entry import main

__all__ = ["main"]
