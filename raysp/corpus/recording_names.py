"""Names of recordings: the suffixes of formats with their bytes per second, and other suffixes that are not rows."""

# Files are chosen by name, since folders hold other files too. Their format is detected by content.
_READ = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus"}
    | {".rf64", ".snd", ".sph", ".w64", ".wav", ".wave"}
)
_READ_BY_PYAV = frozenset(
    {".3ga", ".3gp", ".3gpp", ".aac", ".adts", ".asf", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4"}
    | {".weba", ".webm", ".wma", ".wmv"}
)
"""Suffixes of formats that need the extra `raysp[av]`."""
_NOT_READ = frozenset(
    {".ac3", ".ac4", ".alac", ".amr", ".ape", ".avi", ".awb", ".dff", ".dsf", ".dts", ".eac3", ".flv", ".gsm", ".mp2"}
    | {".mpc", ".mpeg", ".mpg", ".mpga", ".nist", ".ogm", ".ogv", ".pcm", ".qcp", ".ra", ".raw", ".shn", ".spx"}
    | {".tta", ".voc", ".vox", ".wv", ".wv1", ".wv2"}
)
"""Suffixes of formats that are mostly unsupported. Such a file is still a row (`unsupported_format`), never dropped."""
SUFFIXES = _READ | _READ_BY_PYAV | _NOT_READ
OTHER_SUFFIXES = frozenset(
    {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".yml"}
    | {".doc", ".docx", ".htm", ".html", ".ipynb", ".log", ".md", ".pdf", ".py", ".rst", ".sh", ".txt"}
    | {".gif", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".pt", ".safetensors", ".svg"}
    | {".ctm", ".lab", ".lrc", ".rttm", ".srt", ".stm", ".textgrid", ".trn", ".vtt"}
    | {".db", ".lock", ".md5", ".sha256", ".sqlite", ".zip"}
)
"""Suffixes of files that hold neither rows nor a recording."""
_PCM = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".dff", ".dsf", ".nist", ".pcm", ".raw", ".rf64", ".snd", ".sph"}
    | {".voc", ".w64", ".wav", ".wave"}
)
_LOSSLESS = frozenset({".alac", ".ape", ".flac", ".shn", ".tta", ".wv"})
PCM_BYTES_A_SECOND = 32_000
"""Bytes per second of 16-bit PCM at 16 kHz, the rate of most models."""
_LOSSLESS_SHARE, _LOSSY_SHARE = 0.5, 0.1
"""Bytes of other formats over those of PCM."""


def is_audio(path: str) -> bool:
    """Return whether a file is a recording by its suffix, and so a row."""
    return suffix_of(path) in SUFFIXES


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; empty if there is none."""
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot else ""


def estimated_seconds(num_bytes: int, path: str = "") -> float:
    """Estimate the seconds of recordings by their bytes and the suffix of a name; by default as if lossless."""
    suffix = suffix_of(path)
    if suffix in _PCM:
        return num_bytes / PCM_BYTES_A_SECOND
    is_lossy = suffix in SUFFIXES - _LOSSLESS
    return num_bytes / (PCM_BYTES_A_SECOND * (_LOSSY_SHARE if is_lossy else _LOSSLESS_SHARE))


def without_suffix(path: str) -> str:
    """Return the path of a recording without the suffix of a known format; others are kept."""
    return path[: -len(suffix_of(path))] if is_audio(path) else path
