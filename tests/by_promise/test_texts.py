"""Texts of a corpus: NaN is no text in any source, and texts that look like numbers stay texts."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import a_pipeline, rows_table, wav, write_shard, write_tar

NAN = float("nan")
TEXTS = ["one", NAN, "NaN", None]
READ = ["one", None, "NaN", None]


def recordings(folder: Path, num_rows: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(num_rows):
        (folder / f"{row}.wav").write_bytes(wav(8000, seed=row))
    return folder


def manifest(folder: Path, values: list[object], name: str = "text") -> Path:
    lines = [{"audio_filepath": f"{row}.wav", name: value} for row, value in enumerate(values)]
    (recordings(folder, len(values)) / "m.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder / "m.jsonl"


def metadata(folder: Path, values: list[object], name: str = "text") -> Path:
    lines = [{"file_name": f"{row}.wav", name: value} for row, value in enumerate(values)]
    (recordings(folder, len(values)) / "metadata.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def samples(folder: Path, values: list[object], name: str = "text") -> Path:
    folder.mkdir()
    files = {}
    for row, value in enumerate(values):
        files |= {f"{row}.wav": wav(8000, seed=row), f"{row}.json": json.dumps({name: value}).encode()}
    write_tar(folder / "x.tar", files)
    return folder


def shar(folder: Path, values: list[object], name: str = "text") -> Path:
    folder.mkdir()
    cuts = [{"id": f"{row}", "duration": 0.5, "custom": {name: value}} for row, value in enumerate(values)]
    (folder / "cuts.000000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cuts))
    files = {}
    for row in range(len(values)):
        files |= {f"{row}.wav": wav(8000, seed=row), f"{row}.json": b"{}"}
    write_tar(folder / "recording.000000.tar", files)
    return folder


JSON_SOURCES = {"manifest": manifest, "metadata.jsonl": metadata, "tar": samples, "Shar": shar}


@pytest.fixture(params=JSON_SOURCES)
def in_json(request, tmp_path):
    def write(values: list[object], name: str = "words") -> Path:
        return JSON_SOURCES[request.param](tmp_path / "in", values, name)

    return write


def labels(url: object, out: Path, column: str = "words", **source: object) -> list[object]:
    """Return a column of the label shards, in the order of the rows."""
    source = {"text": column} | source
    raysp.run(a_pipeline(raysp.Shards(str(url), **source), raysp.Parquet(str(out), keep=[column])), progress=False)
    rows = [row for file in sorted(out.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    return [row[column] for row in rows]


@pytest.mark.usefixtures("without_ray")
class TestNaN:
    def test_in_json_a_missing_text_is_null(self, in_json, tmp_path):
        assert labels(in_json(TEXTS), tmp_path / "out") == READ

    def test_an_infinity_is_refused_with_its_place(self, in_json, tmp_path):
        message = reason(raysp.Shards(str(in_json(["one", float("-inf")]))), tmp_path / "out")
        assert "is not JSON (found -Infinity, expected a number or null)" in message
        assert "line 2" in message or "'1.json'" in message

    def test_of_a_manifest_a_path_an_id_and_a_duration_are_missing_too(self, tmp_path):
        recordings(tmp_path / "in", 2)
        line = {"audio_filepath": "0.wav", "id": NAN, "duration": NAN, "offset": NAN}
        (tmp_path / "in/m.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps({'audio_filepath': NAN})}\n")
        raysp.run(a_pipeline(str(tmp_path / "in/m.jsonl"), tmp_path / "out"), progress=False)
        rows = pq.read_table(tmp_path / "out/m-00000.parquet").to_pylist()
        assert [(row["id"], row["seconds"], row["error_type"]) for row in rows] == [
            ("0.wav", 0.5, None),
            (None, None, "no_audio"),
        ]

    def test_a_column_of_floats_in_parquet_is_no_text(self, tmp_path):
        write_shard(tmp_path / "in/a.parquet", table=rows_table(2).set_column(2, "text", pa.array([NAN, NAN])))
        message = reason(raysp.Shards(str(tmp_path / "in"), text="text"), tmp_path / "out")
        assert "column 'text' holds double, expected strings" in message
        assert "write the column as strings (pandas: .astype('string'))" in message


def reason(source: raysp.Shards, out: Path) -> str:
    """Return the reason why the only shard of a source, or the source, is refused."""
    try:
        return " ".join(raysp.plan(a_pipeline(source, out)).corpus.unreadable.values())
    except raysp.PlanError as error:
        return str(error)


class TestNumbers:
    """A column whose texts are all numbers: of digits, codes, telephone numbers."""

    @pytest.mark.usefixtures("without_ray")
    @pytest.mark.parametrize("quote", ["", '"'])
    def test_cells_of_csv_are_texts_as_they_stand(self, tmp_path, quote):
        recordings(tmp_path / "in", 3)
        cells = ["112", "1e5", "2.50"]
        lines = [f"{quote}{row}.wav{quote},{quote}{cell}{quote},{row}\n" for row, cell in enumerate(cells)]
        (tmp_path / "in/metadata.csv").write_text(f"file_name,digits,take\n{''.join(lines)}")
        assert labels(tmp_path / "in", tmp_path / "out", "digits") == cells
        assert labels(tmp_path / "in", tmp_path / "takes", "take", text="digits") == [0, 1, 2]

    @pytest.mark.usefixtures("without_ray")
    def test_words_of_csv_that_other_readers_take_for_values_are_texts(self, tmp_path):
        words = ["null", "NaN", "NA", "None", "true", "1e5", "007", "-"]
        recordings(tmp_path / "in", len(words))
        lines = [f"{row}.wav,{word}\n" for row, word in enumerate(words)]
        (tmp_path / "in/metadata.csv").write_text(f"file_name,words\n{''.join(lines)}")
        assert labels(tmp_path / "in", tmp_path / "out") == words

    @pytest.mark.parametrize("output", [raysp.Transcript(), raysp.Align("digits")])
    def test_numbers_of_json_are_refused_with_the_remedy(self, in_json, tmp_path, output):
        text = "digits" if isinstance(output, raysp.Transcript) else None
        source = raysp.Shards(str(in_json([112, 113], "digits")), text=text)
        with pytest.raises(raysp.PlanError, match="column 'digits' holds int64, expected strings") as refused:
            raysp.plan(a_pipeline(source, tmp_path / "out", label={"outputs": [output]}))
        assert ". If its values are texts, write them in quotes" in str(refused.value)
