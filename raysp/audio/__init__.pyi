"""The public names of decoding, as type checkers and `raysp/audio/__init__.py` read them."""

from .decoding import DecodeOptions as DecodeOptions
from .decoding import TooLong as TooLong
from .decoding import decode as decode
from .decoding import decode_all as decode_all
from .decoding import decode_chunks as decode_chunks
from .samples import Channel as Channel
from .samples import Samples as Samples
from .source import AudioHeader as AudioHeader
from .source import Excerpt as Excerpt
from .source import Recording as Recording
from .source import SupportsRead as SupportsRead
from .source import read_header as read_header
from .source import read_headers as read_headers
