"""Decoding of recordings to samples; soundfile, soxr and numpy are imported by modules that decode only."""

from raysp.public_names import lazily

# A public name is imported when it is first used; the names and their modules are listed in __init__.pyi.
__getattr__, __dir__, __all__ = lazily(__name__, __file__)
