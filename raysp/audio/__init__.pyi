"""The public names of decoding, as type checkers and `raysp/audio/__init__.py` read them."""

from .source import read_header as read_header
from .source import read_headers as read_headers
from .stream_decoding import decode as decode
from .stream_decoding import decode_all as decode_all
from .stream_decoding import decode_chunks as decode_chunks
from .waveforms import AudioHeader as AudioHeader
from .waveforms import Channel as Channel
from .waveforms import DecodeOptions as DecodeOptions
from .waveforms import Excerpt as Excerpt
from .waveforms import Recording as Recording
from .waveforms import Samples as Samples
from .waveforms import SupportsRead as SupportsRead
from .waveforms import TooLong as TooLong
