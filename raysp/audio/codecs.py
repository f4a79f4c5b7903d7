"""Codecs that PyAV decodes, and the samples of their frames."""

import av
import numpy as np
import numpy.typing as npt

CODECS = (
    *("aac", "aac_latm", "ac3", "alac", "amrnb", "amrwb", "dca", "eac3", "flac", "mp2", "mp2float", "mp3", "mp3float"),
    *("opus", "libopus", "pcm_alaw", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_mulaw", "pcm_s16be"),
    *("pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_s8", "pcm_u8", "tta", "vorbis", "wavpack"),
    *("g726", "g726le", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice"),
)
_SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
Frames = npt.NDArray[np.float32]  # (num_frames, channels)


def libopus(context: "av.AudioCodecContext") -> "av.AudioCodecContext":
    """Return the decoder of libopus: FFmpeg's own has other samples at low bit rates, by delaying them otherwise."""
    if "libopus" not in av.codecs_available:
        return context
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata, decoder.sample_rate, decoder.layout = context.extradata, context.sample_rate, context.layout
    decoder.options = {"request_sample_fmt": "flt"}  # else it rounds to 16 bits
    return decoder


def samples_of(frame: "av.AudioFrame") -> Frames:
    """Return the samples of a frame as float32, nominally within -1 and 1."""
    num_channels = frame.layout.nb_channels
    if num_channels == 1 and frame.format.name in ("flt", "fltp"):  # several times faster than `to_ndarray`
        return np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples).reshape(-1, 1)
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, num_channels)
    scale = _SCALES.get(frame.format.packed.name)
    if scale is None:
        return np.ascontiguousarray(values, np.float32)
    # In float64, which holds samples of 32 bits exactly.
    centred = values.astype(np.float64) - (scale if frame.format.packed.name == "u8" else 0.0)
    return (centred / scale).astype(np.float32)
