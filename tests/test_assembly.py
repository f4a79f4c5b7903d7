"""Ops that are built from the specs of a pipeline, without running them."""

import pyarrow as pa
import pytest

import raysp
from raysp import Pipeline
from raysp.audio import DecodeOptions
from raysp.cluster.resources import Resources
from raysp.corpus.shards import Piece, Shard
from raysp.labelling import assembly
from raysp.labelling.planning.run_plan import output_schema
from raysp.labelling.planning.settling import settle
from tests.corpora import a_pipeline, write_shard


def every_row(table: pa.Table) -> list[bool]:
    return [True] * table.num_rows


EVERY_ROW = f"{__name__}:every_row"


@pytest.fixture
def shard(tmp_path) -> Shard:
    return Shard("a.parquet", str(write_shard(tmp_path / "a.parquet")), 1, "", 3, "0" * 16, (Piece(0, 3),))


def filtered(*before: raysp.Keep, after: tuple[raysp.Keep, ...] = ()) -> Pipeline:
    label = a_pipeline().label
    return a_pipeline(steps=[*before, raysp.Decode(channel=1, max_seconds=9), *after, label])


def test_decoding_has_the_filters_on_their_sides_of_it_and_the_settings_of_the_steps(shard):
    pipeline = filtered(raysp.Keep(where=[("language", "==", "en")]), after=(raysp.Keep(min_seconds=0.5),))
    settings = settle(pipeline, Resources(cpus=2))
    op = assembly.decoding(pipeline, settings, shard)
    assert [keep.where for keep in op.before] == [(("language", "==", "en"),)]
    assert [(keep.where, keep.min_seconds) for keep in op.after] == [(None, 0.5)]
    assert op.options == DecodeOptions(settings.checkpoint.sample_rate, 1, 9)
    assert op.block_seconds == settings.block_seconds


def test_the_columns_read_are_the_audio_and_those_of_the_filters(shard):
    assert assembly.decoded_columns(a_pipeline(), shard) == ["audio"]
    keep = raysp.Keep(where=[("language", "==", "en")])
    assert assembly.decoded_columns(filtered(after=(keep,)), shard) == ["audio", "language"]
    any_column = raysp.Keep(where=EVERY_ROW)
    assert assembly.decoded_columns(filtered(any_column), shard) == ["audio", "id", "language", "text"]


def test_a_function_of_a_filter_is_imported_unless_it_is_given():
    keep = raysp.Keep(where=EVERY_ROW)
    assert assembly.row_op(keep).where is every_row
    given = assembly.row_op(keep, {EVERY_ROW: list})
    assert given.where is list


def test_joined_rows_have_the_columns_of_all_outputs():
    pipeline = a_pipeline(label={"outputs": [raysp.Transcript(words=True), raysp.Embedding()]})
    settings = settle(pipeline, Resources(cpus=2))
    joined = [name for output in assembly.joining(pipeline, settings).outputs for name in output.schema.names]
    assert joined == output_schema(pipeline, settings.checkpoint).names
    assert joined == ["pred_text", "pred_score", "pred_words", "embedding"]
