"""Label very large speech corpora offline on Ray.

Point it at a bucket of audio shards and it returns label shards, row for row.
"""

from raysp.public_names import lazily

__version__ = "0.1.0"

# A public name is imported when it is first used; the names and their modules are listed in __init__.pyi.
__getattr__, __dir__, __all__ = lazily(__name__, __file__)
