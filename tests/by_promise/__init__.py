"""Tests by promise: each comes in where users do, by the command line, public names, or files."""
