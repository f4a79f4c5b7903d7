"""Detection of a recording's container by its first bytes, and classification of libsndfile's errors on opening.

The allow-list is applied twice: to the magic bytes, so that no rare parser of libsndfile or FFmpeg reads untrusted
bytes, and to the format that libsndfile reports.
"""

from dataclasses import dataclass
from typing import Literal

from raysp.bounds import complaint
from raysp.errors import AudioError
from raysp.words import count

SOUND_FILES = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC"})
"""Containers that libsndfile reads."""
MEDIA = {"MP3": "mp3", "OGG": "ogg", "AAC": "aac", "MP4": "mov", "Matroska": "matroska", "ASF": "asf"}
"""Containers that PyAV reads, and their demuxers in FFmpeg."""
FALLBACKS = {"WAV": "wav"}
"""Containers of which PyAV reads some codecs, and their demuxers (see `is_for_media`)."""
EXPECTED = "WAV, RF64, W64, AIFF, AU, CAF, NIST SPH, FLAC, MP3, Ogg, MP4, Matroska, WebM, AAC or WMA"

MAGICS = {
    b"RF64": "RF64",
    b"riff": "W64",
    b".snd": "AU",
    b"dns.": "AU",
    b"caff": "CAF",
    b"NIST": "NIST",
    b"OggS": "OGG",
    b"fLaC": "FLAC",
    b"\x1aE\xdf\xa3": "Matroska",
    b"0&\xb2u": "ASF",
}
_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})
KINDED_MAGICS = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC")}

# libsndfile's error numbers (sndfile.h SF_ERR_*, common.h SFE_*)
UNSUPPORTED_ENCODING, MALLOC_FAILED, UNIMPLEMENTED, WAV_FMT_MALFORMED = 4, 17, 18, 64
OUT_OF_RANGE = frozenset({24, 32, 33, 34, 74, 129})  # SF_INFO incomplete (rate, frames); five about the channel count

# WAV format tags that libsndfile reads: PCM, ADPCM (MS, IMA, NMS, G.72x), float, A-law, mu-law, GSM, extensible.
WAV_TAGS = frozenset({1, 2, 3, 6, 7, 0x11, 0x31, 0x38, 0x40, 0x45, 0x64, 0x65, 0xFFFE})
MEDIA_TAGS = frozenset({0x45, 0x50, 0x55, 0x64})
"""WAV format tags that PyAV reads, as libsndfile does not, or not to the end: G.726, MPEG."""
HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Opening:
    """First bytes and size of a recording."""

    head: bytes
    """The first `HEAD_BYTES` of the recording."""
    num_bytes: int


def sniff(head: bytes) -> str | None:
    """Return the container by the first bytes, or None if raysp does not read it."""
    head = head[:12]
    magic, kind = head[:4], head[8:]
    if magic in MAGICS:
        return MAGICS[magic]
    if magic in KINDED_MAGICS:
        # A truncated kind is allowed: the recording is damaged, not of another format.
        is_allowed = any(name.startswith(kind) for name in KINDED_MAGICS[magic])
        return ("AIFF" if magic == b"FORM" else "WAV") if is_allowed else None
    if head[4:8] in _MP4_BOXES:
        return "MP4"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # twelve sync bits and layer 0
        return "AAC"
    return "MP3" if _is_mpeg_layer(head) else None


def _is_mpeg_layer(head: bytes) -> bool:
    """Return whether eleven sync bits and a layer are found. Layer 0 with the same sync is an AAC ADTS stream."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0


def unsupported(opening: Opening, fault: str) -> AudioError:
    """Return the error for a recording in an unsupported format."""
    return AudioError("unsupported_format", f"{fault}, {describe(opening)}; expected {EXPECTED}")


def unknown(opening: Opening) -> AudioError:
    """Return the error for a recording that `sniff` does not know; of files of other formats with the remedy."""
    if (reason := complaint(opening.head, EXPECTED, may_be_text=False)) is not None:
        return AudioError("unsupported_format", f"the recording {reason}")
    return unsupported(opening, "no known audio format")


def refusal(opening: Opening, container: str, code: int, words: str) -> AudioError:
    """Return the row's error for a recording that libsndfile cannot open.

    Args:
        opening: First bytes and size of the recording.
        container: Result of `sniff`.
        code: libsndfile's error number.
        words: libsndfile's error message.
    """
    report = f"{container}: libsndfile reports {words!r}"
    if code == MALLOC_FAILED:
        return AudioError("out_of_memory", f"{report}, {describe(opening)}; expected a header that needs less memory")
    if code in OUT_OF_RANGE:
        return AudioError(
            "invalid_audio", f"{report}, {describe(opening)}; expected a valid sample rate, channels and length"
        )
    if _is_foreign_codec(opening.head, opening.num_bytes, container, code):
        return unsupported(opening, report)
    return AudioError("corrupt_audio", f"{report}, {describe(opening)}; expected a complete header")


def describe(opening: Opening) -> str:
    """Return a recording's size and first bytes as text, with escapes for non-printable characters."""
    return f"{count(opening.num_bytes, 'byte')} beginning {opening.head[:12]!r}"


def _is_foreign_codec(head: bytes, num_bytes: int, container: str, code: int) -> bool:
    """Return whether the codec is unsupported, not the header damaged. libsndfile has one error number for both."""
    if container == "WAV" and code == WAV_FMT_MALFORMED:
        return _wav_tag(head, num_bytes) not in WAV_TAGS
    if code not in (UNSUPPORTED_ENCODING, UNIMPLEMENTED):
        return False
    if container == "FLAC":
        return _has_flac_streaminfo(head)
    return not (container == "AIFF" and _has_short_aiff_comm(head))


def is_for_media(opening: Opening, container: str) -> bool:
    """Return whether PyAV reads a sound file, by its codec."""
    return container in FALLBACKS and _wav_tag(opening.head, opening.num_bytes) in MEDIA_TAGS


def _wav_tag(head: bytes, num_bytes: int) -> int:
    """Return the format tag of a WAV; the tag of PCM where its chunk is not whole."""
    place = head.find(b"fmt ")
    if place < 0 or place + 24 > len(head):
        return 1
    order: Literal["big", "little"] = "big" if head.startswith(b"RIFX") else "little"
    chunk_bytes = int.from_bytes(head[place + 4 : place + 8], order)
    tag = int.from_bytes(head[place + 8 : place + 10], order)
    return tag if 16 <= chunk_bytes <= num_bytes - place - 8 else 1


def _has_flac_streaminfo(head: bytes) -> bool:
    """Return whether a STREAMINFO of 34 bytes is in place. Then the bit depth (12, 15, 20, ...) is unsupported."""
    return len(head) >= 42 and head[4] & 0x7F == 0 and head[5:8] == b"\x00\x00\x22"


def _has_short_aiff_comm(head: bytes) -> bool:
    place = head.find(b"COMM")
    return place >= 0 and int.from_bytes(head[place + 4 : place + 8], "big") < 18
