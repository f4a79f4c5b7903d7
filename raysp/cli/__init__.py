"""The command line: one function per verb, one file per group of verbs. The only package that prints."""

from raysp.cli.entry import main

__all__ = ["main"]
