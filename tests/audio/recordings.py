"""Recordings of noise and tones in many formats, encoded by libsndfile and FFmpeg or written by hand."""

import io
import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile

RATE = 16_000


def encode(samples, sample_rate=RATE, container="WAV", subtype=None):
    """Encode in short writes (libsndfile's Vorbis encoder overflows its stack on a long one)."""
    file = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(file, "w", sample_rate, channels, subtype=subtype, format=container) as sound:
        for start in range(0, len(samples), 16000):
            sound.write(samples[start : start + 16000])
    return file.getvalue()


def noise(num_frames, channels=None, seed=0, dtype="int16"):
    shape = num_frames if channels is None else (num_frames, channels)
    samples = np.random.default_rng(seed).normal(0, 3000, shape).clip(-32768, 32767).astype(np.int16)
    return samples if dtype == "int16" else (samples / 32768).astype(dtype)


def wav(data=bytes(2000), *, sample_rate=RATE, channels=1, tag=1, claimed_bytes=None):
    """Build a WAV by hand, with a given header."""
    frame_bytes = channels * 2
    fmt = struct.pack(
        "<HHIIHH", tag, channels, sample_rate, sample_rate * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, 16
    )
    claimed = len(data) if claimed_bytes is None else claimed_bytes
    head = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", claimed)
    return b"RIFF" + struct.pack("<I", min(len(head) + claimed, 0xFFFFFFFF)) + head + data


def with_flac_streaminfo(flac, *, num_frames):
    """Rewrite the length that a FLAC claims: 20 bits of rate, 3 of channels, 5 of depth, 36 of length from byte 18."""
    fields = int.from_bytes(flac[18:26], "big") >> 36 << 36 | num_frames
    return flac[:18] + fields.to_bytes(8, "big") + flac[26:]


def plain_mp3(signal: np.ndarray, rate: int = RATE) -> bytes:
    """Make an MP3 without the frame that counts the others."""
    audio = encode(signal, rate, "MP3")
    with av.open(io.BytesIO(audio), format="mp3") as media:
        return audio[next(media.demux(audio=0)).pos :]


def muxed(samples: np.ndarray, container: str, codec: str, rate: int = RATE, channels: int = 1, **muxing: Any) -> bytes:
    """Encode float32 samples at 16 kHz by FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, **muxing) as media:
        layout = "mono" if channels == 1 else "stereo"
        stream = media.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(
            stream.codec.audio_formats[0], layout, rate, frame_size=960 if rate > RATE else 1024
        )
        frame = av.AudioFrame.from_ndarray(np.repeat(samples[None], channels, 0), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            media.mux(stream.encode(part))
        media.mux(stream.encode(None))
    return file.getvalue()


def timed(container: str, codec: str, tracks: list[list[tuple[float, np.ndarray]]], *, film: bool = False) -> bytes:
    """Make a container of tracks at 48 kHz, each of parts that begin at given seconds; a film begins at 0."""
    rate, file, packets = 48_000, io.BytesIO(), []
    with av.open(file, "w", format=container) as media:
        if film:
            video = media.add_stream("mpeg4", rate=10)
            video.width = video.height = 16
            for number in range(20):
                frame = av.VideoFrame(16, 16, "yuv420p")
                frame.pts = number
                packets += video.encode(frame)
            packets += video.encode(None)
        for parts in tracks:
            stream = media.add_stream(codec, rate=rate, layout="mono")
            context = stream.codec_context
            context.open()
            size = context.frame_size or 960
            for seconds, samples in parts:
                for place in range(0, len(samples), size):
                    piece = np.zeros((1, size), np.int16)
                    piece[0, : len(samples) - place] = samples[place : place + size]
                    is_float = context.format.name.startswith("flt")
                    frame = av.AudioFrame.from_ndarray(
                        piece.astype(np.float32) / 32768 if is_float else piece, context.format.name, "mono"
                    )
                    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                    frame.pts = round(seconds * rate) + place
                    packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted((one for one in packets if one.dts is not None), key=lambda one: one.dts * one.time_base):
            media.mux(packet)
    return file.getvalue()
