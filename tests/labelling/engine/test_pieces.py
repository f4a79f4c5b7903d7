"""A piece in, an ordered staged file and a receipt out."""

from dataclasses import replace
from functools import partial

import pytest

import raysp
from raysp.cluster.resources import Resources
from raysp.corpus.shards import Piece
from raysp.errors import ShardError
from raysp.labelling.engine.job import Job, LabelledPiece, LostReader, PieceTodo, ReadingError
from raysp.labelling.engine.model import Model
from raysp.labelling.engine.piece import commit_shard, label_piece
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from raysp.sink import layout
from raysp.sink.receipts import ShardFailure
from raysp.sink.sinks import Sink
from tests.corpora import CHECKPOINT, digits_table, wav, with_columns, write_shard
from tests.runs import read_labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "outputs", "channel"),
    [
        ({}, [raysp.Transcript(), raysp.Align("text")], "mean"),
        ({"windows": "speech"}, [raysp.Transcript()], "mean"),
        ({}, [raysp.Transcript()], "each"),
    ],
    ids=["even windows", "windows at pauses", "channels"],
)
def test_a_row_that_crashes_processes_has_the_columns_of_the_others(
    make_pipeline, small_shards, tmp_path, fields, outputs, channel
):
    if fields:
        pytest.importorskip("silero_vad", reason='needs pip install "raysp[speech]"')
    pipeline = make_pipeline(small_shards, outputs=outputs)
    label = replace(pipeline.label, **fields)
    plan = make_plan(Opened.of(replace(pipeline, steps=[raysp.Decode(channel=channel), label]), Resources(cpus=2)))
    job, store = Job.of(plan), Sink.of(pipeline.sink).store
    shard = plan.todo[0].shard
    (piece,) = shard.pieces
    models = Model.of(job)
    last = piece.end - 1
    for part in (Piece(last, piece.end), Piece(0, last)):
        todo = PieceTodo(shard, piece, part, has_crashed=part.first == last)
        *_, message = label_piece(job, models, todo, partial(read_blocks, job), store, "an actor")
        assert isinstance(message, LabelledPiece)
        assert message.is_staged
        counts = message.receipt.counts
        assert (counts.rows, counts.errors) == (part.num_rows, {"worker_crashed": 1} if part.first == last else {})
    models[0].close()
    commit_shard(job, shard, None)
    labels = read_labels(tmp_path / "labels").to_pylist()
    assert [row["row"] for row in labels] == list(range(shard.num_rows))
    assert [row["row"] for row in labels if row["error_type"] == "worker_crashed"] == [last]
    assert all(row["pred_text"] is not None for row in labels if row["status"] == "ok")


def test_a_reader_that_is_lost_in_a_later_pass_is_no_failure_of_its_shard(make_pipeline, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(3))
    pipeline = make_pipeline(tmp_path / "in", outputs=[raysp.Transcript()])
    cut = {"window_seconds": 0.1, "overlap_seconds": 0.0}  # so that no recording is kept from the first pass
    later = raysp.Label(str(CHECKPOINT), outputs=[raysp.Embedding()], **cut)
    plan = make_plan(Opened.of(replace(pipeline, steps=[*pipeline.steps, later]), Resources(cpus=2)))
    job, store = Job.of(plan), Sink.of(pipeline.sink).store
    [piece] = plan.todo[0].shard.pieces
    todo, models = PieceTodo(plan.todo[0].shard, piece, piece), Model.of(job)

    def label(error):
        def read(part):
            if part.number:
                raise error
            return read_blocks(job, part)

        return [*label_piece(job, models, todo, read, store, "an actor")][-1]

    with pytest.raises(ReadingError):
        label(ReadingError(LostReader("a node", is_memory=False)))
    assert label(ShardError("cut short")) == ShardFailure("a.parquet", "cut short")
    assert not list(store.list(layout.STAGE))
    for model in models:
        model.close()


def test_recordings_of_one_window_are_decoded_once_for_all_passes(make_pipeline, tmp_path):
    """Those that are longer than a window of the second pass are decoded again."""
    table = digits_table(6)
    audio = table.column("audio").to_pylist()
    audio[2] = {"bytes": wav(40_000), "path": None}
    write_shard(tmp_path / "in" / "a.parquet", table=with_columns(table, {"audio": audio}))
    pipeline = make_pipeline(tmp_path / "in", outputs=[raysp.Transcript()])
    later = [
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")]),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Embedding()], window_seconds=2, overlap_seconds=0.5),
    ]
    plan = make_plan(Opened.of(replace(pipeline, steps=[*pipeline.steps, *later]), Resources(cpus=2)))
    job, store = Job.of(plan), Sink.of(pipeline.sink).store
    shard = plan.todo[0].shard
    [piece] = shard.pieces
    todo, models, again = PieceTodo(shard, piece, piece), Model.of(job), []

    def read(part):
        again.append((part.number, part.only))
        return read_blocks(job, part)

    assert [*label_piece(job, models, todo, read, store, "an actor")][-1].is_staged
    for model in models:
        model.close()
    assert again == [(0, None), (2, (2,))]
