"""Remedies for rows without a label, by `error_type`."""

from collections.abc import Mapping

FILTERED = "filtered"
"""Reason of rows skipped by a `Keep` step, which need no remedy."""
WITHDRAWN = "withdrawn"
"""Reason of rows whose labels `raysp forget` removed, which need no remedy."""
_CONVERT = "convert the recordings to FLAC or WAV, for example with `ffmpeg -i IN -ac 1 OUT.flac`"
REMEDIES: Mapping[str, str] = {
    "no_audio": "embed the recordings (audio.bytes), or set source.audio_root if rows have only paths",
    "path_not_allowed": "set source.audio_root to the folder that contains the files, or the targets of their links, "
    "or embed the recordings",
    "not_found": "check that the files exist, and that paths are relative to source.audio_root",
    "unreadable_text": "correct the texts that error_message of these rows names, or remove those beside recordings; "
    "if they are links, set source.audio_root to a folder that contains their targets",
    "not_readable": "give permission to read the recordings, and restore archived ones",
    "unsupported_format": f"{_CONVERT}, or exclude them with a glob, such as source.url='corpus/**/*.wav'; fetch or "
    "decompress them where error_message asks for it",
    "corrupt_audio": "copy the recordings again from their source",
    "invalid_audio": f"check sample rate, channels and samples of one recording, and {_CONVERT}",
    "decoder_crashed": _CONVERT,
    "decoder_timeout": _CONVERT,
    "out_of_memory": f"split the recordings into shorter ones, or {_CONVERT}",
    "worker_crashed": "check the workers' logs for the cause, and raise pool.memory if they ran out of memory",
    "step_failed": "correct the function of the pipeline that raised the error",
    "unknown_language": "correct the column of the languages, or leave these rows out with Keep(where=...)",
    "model_output": "set dtype='float32' on the Label step, and check the checkpoint with `raysp inspect`",
    "no_speech": "check Decode(channel=...): another channel may hold the speech",
    "too_short": "check source.audio: the recordings are shorter than a frame of the model",
    "too_long": "raise Decode(max_seconds=...)",
}


def remedy(error_type: str) -> str:
    """Return the remedy for rows of this type, as an imperative without a full stop."""
    return REMEDIES.get(error_type, "see error_message of these rows")
