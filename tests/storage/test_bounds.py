"""Data from outside: a small file never fills the memory, and a message never repeats all of it."""

import gzip
import io
import json
import resource
import subprocess
import sys
import tarfile

import pytest

import raysp
from raysp import CheckpointError, PlanError, bounds
from raysp.models import AutoTokenizer, check_checkpoint
from tests import corpora, kit
from tests.corpora import CHECKPOINT
from tests.storage.limited import MIB, bomb

DEEP = ("[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "[[]," * 101 + "1" + "]" * 101)


@pytest.mark.slow
def test_a_compressed_manifest_that_decodes_to_hundreds_of_times_its_size_is_refused_at_the_bound(tmp_path):
    lines = b"\n".join([b'{"audio_filepath": "a.wav"}', *[b" " * MIB] * 80])
    for data, message in (
        (bomb(b'{"audio_filepath": "a.wav"'), "a line has more than 16,777,216 bytes"),
        (gzip.compress(lines), "decodes to more than 67,108,864 bytes"),
    ):
        (tmp_path / "m.jsonl.gz").write_bytes(data)
        with pytest.raises(PlanError, match=message):
            raysp.plan(corpora.reading(tmp_path / "m.jsonl.gz", tmp_path / "out"))


def test_blank_lines_on_end_are_bounded_and_those_between_others_are_not():
    data = (b"\n" * 600_000 + b"a\n") * 2
    assert sum(1 for _ in bounds.lines(io.BytesIO(data))) == 1_200_002
    with pytest.raises(bounds.TooLargeError, match="has more than 1,000,000 blank lines in a row"):
        list(bounds.lines(io.BytesIO(data + b"\n" * 1_000_001)))


def test_a_manifest_of_blank_lines_is_refused_at_the_bound_over_all_its_slices(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b"\n" * 1_000_001)
    with pytest.raises(PlanError, match=r"m.jsonl: has more than 1,000,000 blank lines in a row; expected a manifest"):
        raysp.plan(corpora.reading(tmp_path / "m.jsonl", tmp_path / "out"))


@pytest.mark.parametrize("text", DEEP)
def test_json_is_refused_below_the_depth_at_which_code_that_walks_over_it_fails(tmp_path, text):
    (tmp_path / "config.json").write_text(f'{{"a": {text}}}')
    with pytest.raises(CheckpointError, match="nested too deeply; expected at most 100 levels"):
        check_checkpoint(tmp_path)
    ordinary = f'{"[" * 90 + "]" * 90}, "b": [{"[[]]," * 1000} {{}}], "c": "{"[" * 1000}"'
    values = json.loads((CHECKPOINT / "config.json").read_text())
    for file in CHECKPOINT.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**values, "more": json.loads(f'{{"a": {ordinary}}}')}))
    check_checkpoint(tmp_path)


def test_a_nemo_archive_whose_header_claims_hundreds_of_megabytes_is_refused_by_the_header(tmp_path):
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 512 * MIB
    (tmp_path / "a.nemo").write_bytes(gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + b"a" * MIB))
    ran = kit.run(["convert", tmp_path / "a.nemo", tmp_path / "model"])
    assert ran.code == 2
    assert "a header claims 536,870,912 bytes; expected at most 1,048,576" in ran.err
    assert len(ran.err) < 700


def hole(path, num_bytes: int = 64 * MIB + 1) -> None:
    """Make a file that takes no space."""
    with path.open("wb") as file:
        file.truncate(num_bytes)


def piece_of(text: bytes) -> bytes:
    """Return a model of sentencepiece with one piece."""

    def field(number: int, data: bytes) -> bytes:
        size, length = len(data), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2]) + bytes([*length, size]) + data

    return field(1, field(1, text))


@pytest.mark.parametrize(
    ("cls", "file", "content", "message"),
    [
        ("BertTokenizer", "tokenizer.json", None, "has 67,108,865 bytes; expected at most 67,108,864"),
        ("BertTokenizer", "vocab.txt", None, "has 67,108,865 bytes; expected at most 67,108,864"),
        ("MBartTokenizer", "sentencepiece.bpe.model", None, "expected at most 67,108,864"),
        ("MBartTokenizer", "sentencepiece.bpe.model", piece_of(b"a" * 1_000_000), "has 1,000,000 bytes in a piece; ex"),
    ],
)
def test_files_of_a_tokenizer_have_bounds(tmp_path, cls, file, content, message):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls}))
    hole(tmp_path / file) if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        AutoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("\\data\\\nngram 1=" + "9" * 5000, "expected 'ngram 1=' and a number"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 " + "a" * 500_000, "expected words of at most 1,000 characters"),
        ("\\data\\\nngram 1=999999999999\n\n\\1-grams:\n-1 a\n", "expected one of 999,999,999,999 1-grams"),
        ("a" * 5_000_000, "expected lines of less than"),
    ],
)
def test_a_language_model_that_claims_too_much_is_refused_with_its_line(tmp_path, lines, message):
    (tmp_path / "model.arpa").write_text(lines)
    output = raysp.Transcript(beams=4, lm=str(tmp_path / "model.arpa"))
    with pytest.raises(raysp.RayspError) as error:
        raysp.plan(kit.corpus(tmp_path / "in", rows=1).pipeline(tmp_path / "out", outputs=[output]))
    assert message in str(error.value)
    assert len(str(error.value)) < 800


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_memory_is_limited_until_the_last_thread_has_decoded_and_then_as_before():
    before = soft_limit()
    with bounds.limited_memory(MIB << 12):
        most = soft_limit()
        with bounds.limited_memory(MIB << 11):
            assert soft_limit() == most  # a lower one would be that of the other thread too
        assert soft_limit() == most
    assert soft_limit() == before != most
    message = r"takes more memory to decode than the most allowed \(1,024 MB\)"
    with pytest.raises(bounds.TooLargeError, match=message), bounds.limited_memory(MIB << 10):
        bytearray(MIB << 13)
    assert soft_limit() == before


def test_a_lower_limit_of_the_process_stays():
    code = (
        "import resource; from raysp import bounds; most = 64 << 30\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (most, most))\n"
        "with bounds.limited_memory(128 << 30): assert resource.getrlimit(resource.RLIMIT_DATA) == (most, most)\n"
        "assert resource.getrlimit(resource.RLIMIT_DATA) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
