"""Decoding of recordings to samples with soundfile, soxr and numpy."""

from raysp.audio.decoding import DecodeOptions, TooLong, decode, decode_all, decode_chunks
from raysp.audio.samples import Channel, Samples
from raysp.audio.source import AudioHeader, Excerpt, Recording, SupportsRead, read_header, read_headers

__all__ = [
    "AudioHeader",
    "Channel",
    "DecodeOptions",
    "Excerpt",
    "Recording",
    "Samples",
    "SupportsRead",
    "TooLong",
    "decode",
    "decode_all",
    "decode_chunks",
    "read_header",
    "read_headers",
]
