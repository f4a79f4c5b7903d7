"""Code from outside raysp that a pipeline names: which files it is, their hash, and how they travel to workers.

What is hashed is what is shipped: files are read once, on the driver, and workers import what was read. Computed names
of modules (`import_module(name)`) and data files are not seen.
"""

from raysp.specs.code.reading import read
from raysp.specs.code.user_code import CodeFile, UserCode

__all__ = ["CodeFile", "UserCode", "read"]
