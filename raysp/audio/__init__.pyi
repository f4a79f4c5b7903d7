"""The public names of decoding, as type checkers and `raysp/audio/__init__.py` read them."""

from .source import AudioHeader as AudioHeader
from .source import Excerpt as Excerpt
from .source import Recording as Recording
from .source import SupportsRead as SupportsRead
from .source import read_header as read_header
from .source import read_headers as read_headers
from .stream_decoding import DecodeOptions as DecodeOptions
from .stream_decoding import TooLong as TooLong
from .stream_decoding import decode as decode
from .stream_decoding import decode_all as decode_all
from .stream_decoding import decode_chunks as decode_chunks
from .waveforms import Channel as Channel
from .waveforms import Samples as Samples
