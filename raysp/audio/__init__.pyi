"""The public names of decoding, as type checkers and `raysp/audio/__init__.py` read them."""

from .excerpts import AudioHeader as AudioHeader
from .excerpts import Channel as Channel
from .excerpts import DecodeOptions as DecodeOptions
from .excerpts import Excerpt as Excerpt
from .excerpts import Recording as Recording
from .excerpts import SupportsRead as SupportsRead
from .excerpts import TooLong as TooLong
from .source import read_header as read_header
from .source import read_headers as read_headers
from .stream_decoding import decode as decode
from .stream_decoding import decode_all as decode_all
from .stream_decoding import decode_chunks as decode_chunks
from .waveforms import Samples as Samples
