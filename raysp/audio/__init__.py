"""Recordings to samples: soundfile, soxr and numpy."""

from raysp.audio.decoding import Samples, TooLong, decode, decode_chunks
from raysp.audio.source import AudioHeader, read_header

__all__ = ["AudioHeader", "Samples", "TooLong", "decode", "decode_chunks", "read_header"]
