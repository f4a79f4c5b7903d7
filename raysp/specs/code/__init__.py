"""Code from outside raysp that a pipeline uses: its files, their hash, and their transfer to workers.

The shipped content is the hashed content: files are read once, on the driver, and workers import that content. Modules
imported by computed names (`import_module(name)`) and data files are not detected.
"""

from raysp.specs.code.reading import read
from raysp.specs.code.user_code import CodeFile, UserCode

__all__ = ["CodeFile", "UserCode", "read"]
