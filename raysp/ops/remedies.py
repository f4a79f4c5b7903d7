"""Remedies for rows without a label, by `error_type`."""

from collections.abc import Mapping

FILTERED = "filtered"
"""Reason of rows skipped by a `Keep` step, which need no remedy."""
_CONVERT = "convert the recordings to FLAC or WAV, such as by `ffmpeg -i IN -ac 1 OUT.flac`"
REMEDIES: Mapping[str, str] = {
    "no_audio": "embed the recordings (audio.bytes), or give source.audio_root where rows have only paths",
    "path_not_allowed": "give source.audio_root, the folder that the paths lead into, or embed the recordings",
    "not_found": "check that the files are there, and that source.audio_root is the folder that the paths begin in",
    "not_readable": "give permission to read the recordings",
    "unsupported_format": f"{_CONVERT}, or leave them out by a glob, such as source.url='corpus/**/*.wav'",
    "corrupt_audio": "copy the recordings again from where they came from",
    "invalid_audio": f"check sample rate, channels and samples of one recording, and {_CONVERT}",
    "decoder_crashed": _CONVERT,
    "decoder_timeout": _CONVERT,
    "out_of_memory": f"cut the recordings into shorter ones, or {_CONVERT}",
    "worker_crashed": "look into the workers' logs for what they died of, and give an actor more by pool.memory",
    "step_failed": "mend the function of the pipeline that raised the error",
    "model_output": "set dtype='float32' on the Label step, and check the checkpoint by `raysp inspect`",
    "no_speech": "check Decode(channel=...): another channel may hold the speech",
    "too_short": "check source.audio: the recordings are shorter than a frame of the model",
    "too_long": "raise Decode(max_seconds=...)",
}


def remedy(error_type: str) -> str:
    """Return the remedy for rows of this type, as an imperative without a full stop."""
    return REMEDIES.get(error_type, "look at error_message of these rows")
