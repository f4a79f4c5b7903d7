"""Data from outside: a small file never fills the memory, and a message never repeats all of it."""

import gzip
import io
import json
import resource
import subprocess
import sys
import tarfile
from functools import cache

import pytest

from raysp import CheckpointError, bounds
from raysp.bounds import TooLargeError


@cache
def bomb(head: bytes = b"", mib: int = 80) -> bytes:
    """Return a small gzip file of many spaces."""
    file = io.BytesIO()
    with gzip.open(file, "wb") as written:
        written.write(head)
        for _ in range(mib):
            written.write(b" " * bounds.MIB)
    return file.getvalue()


def opened(data: bytes):
    return bounds.decompressed(io.BytesIO(data), len(data))


@pytest.mark.slow
def test_a_file_that_decodes_to_hundreds_of_times_its_size_is_refused_at_the_bound():
    file = opened(bomb())
    with pytest.raises(TooLargeError, match="decodes to more than 67,108,864 bytes"):
        bounds.read(file, 2 * bounds.FREE_BYTES)
    assert file.tell() <= bounds.FREE_BYTES + 2 * bounds.MIB
    with pytest.raises(TooLargeError):
        opened(bomb()).seek(bounds.FREE_BYTES + bounds.MIB)


def test_an_ordinary_compressed_file_is_read_whole_from_any_place():
    lines = b"".join(b'{"audio_filepath": "%d.wav"}\n' % number for number in range(10_000))
    file = opened(gzip.compress(lines[:1000]) + gzip.compress(lines[1000:]))
    assert b"".join(bounds.lines(file)) == lines
    assert file.seek(500) == 500
    assert file.read(1000) == lines[500:1500]


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"no gzip" + data])
def test_a_damaged_compressed_file_is_an_error_of_damage(change):
    with pytest.raises(bounds.DAMAGED):
        opened(change(gzip.compress(b"a" * 1000))).read()


def test_blank_lines_on_end_are_bounded_and_those_between_others_are_not(monkeypatch):
    monkeypatch.setattr("raysp.bounds.MOST_BLANK_LINES", 3)
    data = b"\n\n\r\na\n" * 5
    assert b"".join(bounds.lines(io.BytesIO(data))) == data
    with pytest.raises(TooLargeError, match="has more than 3 blank lines in a row"):
        list(bounds.lines(io.BytesIO(data + b"\n" * 4)))


def test_a_line_is_read_up_to_the_bound_alone():
    file = io.BytesIO(b"short\n" + b"x" * 5000)
    lines = bounds.lines(file, 1000)
    assert next(lines) == b"short\n"
    with pytest.raises(TooLargeError, match="a line has more than 1,000 bytes"):
        next(lines)
    assert file.tell() < 1100


def test_an_integer_beyond_the_limit_of_the_interpreter_is_its_digits():
    digits = "-" + "7" * 5000
    assert bounds.parse_json(f'{{"a": {digits}, "b": 12}}') == {"a": digits, "b": 12}


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "[1,]", "\x00"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the words are those of the library
        bounds.parse_json(text)


def test_long_names_and_values_are_shortened():
    assert bounds.shortened("a.wav") == "'a.wav'"
    assert bounds.shortened("a" * 10**6) == repr("a" * 120) + "... (1,000,000 characters)"
    assert bounds.shortened(b"a" * 1000) == repr(b"a" * 120) + "... (1,000 bytes)"
    assert bounds.shortened(10**5000) == "an integer of 16,610 bits"
    assert bounds.shortened(None) == "None"
    assert len(bounds.shortened([1] * 10**5)) < 200
    assert len(bounds.plain("two  words\n" * 10**6)) < 200


def test_columns_are_bounded_in_number_and_length():
    bounds.check_columns([str(number) for number in range(bounds.MOST_COLUMNS)])
    with pytest.raises(TooLargeError, match="has 1,001 columns"):
        bounds.check_columns([str(number) for number in range(bounds.MOST_COLUMNS + 1)])
    with pytest.raises(TooLargeError, match="has a column 'aaa"):
        bounds.check_columns(["a" * 2000])


def test_a_nemo_archive_whose_header_claims_hundreds_of_megabytes_is_refused_by_the_header(tmp_path):
    from raysp.models.base.nemo_archives import read_archive

    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 512 * bounds.MIB
    path = tmp_path / "a.nemo"
    path.write_bytes(gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + b"a" * bounds.MIB))
    with pytest.raises(CheckpointError, match="a header claims 536,870,912 bytes; expected at most 1,048,576") as found:
        read_archive(path, tmp_path / "weights")
    assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    "text", ["[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "[[]," * 101 + "1" + "]" * 101]
)
@pytest.mark.parametrize("form", [str, str.encode])
def test_json_is_refused_below_the_depth_at_which_code_that_walks_over_it_fails(text, form):
    with pytest.raises(TooLargeError, match="nested too deeply; expected at most 100 levels"):
        bounds.parse_json(form(text))


@pytest.mark.parametrize("text", ["[" * 99 + "]" * 99, "[" + "[[]]," * 1000 + '{"a": {}}]', '"' + "[" * 1000 + '"'])
def test_json_of_an_ordinary_depth_is_parsed(text):
    assert bounds.parse_json(text) == json.loads(text)


def test_a_table_is_bounded_in_rows_and_cells():
    bounds.check_table(bounds.MOST_TABLE_ROWS, 10)
    with pytest.raises(TooLargeError, match="has 10,000,001 rows"):
        bounds.check_table(bounds.MOST_TABLE_ROWS + 1, 1)
    with pytest.raises(TooLargeError, match="has 110,000,000 cells"):
        bounds.check_table(bounds.MOST_TABLE_ROWS, 11)


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_memory_is_limited_until_the_last_thread_has_decoded_and_then_as_before():
    before = soft_limit()
    with bounds.limited_memory(bounds.MIB << 12):
        most = soft_limit()
        with bounds.limited_memory(bounds.MIB << 11):
            assert soft_limit() == most  # a lower one would be that of the other thread too
        assert soft_limit() == most
    assert soft_limit() == before != most
    message = r"takes more memory to decode than the most allowed \(1,024 MB\)"
    with pytest.raises(TooLargeError, match=message), bounds.limited_memory(bounds.MIB << 10):
        bytearray(bounds.MIB << 13)
    assert soft_limit() == before


def test_a_lower_limit_of_the_process_stays():
    code = (
        "import resource; from raysp import bounds; most = 64 << 30\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (most, most))\n"
        "with bounds.limited_memory(128 << 30): assert resource.getrlimit(resource.RLIMIT_DATA) == (most, most)\n"
        "assert resource.getrlimit(resource.RLIMIT_DATA) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
