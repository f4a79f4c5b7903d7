"""Runs at the start of each Python whose PYTHONPATH has this folder: takes away what another system lacks."""

import os

import lacking_calls

if os.environ.get(lacking_calls.VARIABLE):
    lacking_calls.take_away()
