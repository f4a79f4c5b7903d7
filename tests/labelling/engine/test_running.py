"""Whole runs on a real Ray."""

import json
import time
from dataclasses import replace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests.hub_server import COMMIT, lay_out
from tests.runs import CHECKPOINT, DEMO, audio_shard, processes, read_labels, row_hash
from tests.user_specs import Spoken

pytestmark = pytest.mark.slow


FIRST = "digits-0000[01]-*.parquet"
"""Two of the ten shards."""
FEW = "part-[019].parquet"
"""Two of the small shards, and one that a test adds."""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("name", "batch_seconds", "actors", "shards"),
    [
        ("unispeech-digits-ctc", 5, 2, FIRST),
        pytest.param("unispeech-digits-ctc", 600, 1, FIRST, marks=pytest.mark.drivers),
        pytest.param("unispeech-digits-ctc", 60, 2, "*.parquet", marks=pytest.mark.soak),
        pytest.param("w2vbert-digits-ctc", 30, 1, FIRST, marks=pytest.mark.drivers),
        pytest.param("w2vbert-digits-ctc", 30, 1, "*.parquet", marks=pytest.mark.soak),
    ],
)
def test_reference_texts_do_not_depend_on_batch_size_or_pool(
    shared, local_ray, make_pipeline, tmp_path, reference_scores, name, batch_seconds, actors, shards
):
    corpus, checkpoint = shared / "data" / "digits" / shards, shared / "checkpoints" / name
    pool = raysp.Pool(actors=actors)
    result = run(make_pipeline(corpus, checkpoint=checkpoint, batch_seconds=batch_seconds, pool=pool))
    texts = json.loads((checkpoint / "texts.json").read_text())
    labels = read_labels(tmp_path / "labels").select(["id", "pred_text", "pred_score"]).to_pylist()
    assert (result.exit_code, len(labels)) == (0, 2500 if shards == "*.parquet" else 500)
    assert [(row["id"], row["pred_text"]) for row in labels if row["pred_text"] != texts[row["id"]]] == []
    for row in labels:
        first = reference_scores.setdefault((name, row["id"]), row["pred_score"])
        assert row["pred_score"] == pytest.approx(first, abs=5e-4)


@pytest.fixture(scope="module")
def reference_scores():
    """Scores of the first of the runs that are compared, by id."""
    return {}


@pytest.mark.cluster
def test_label_shards_have_the_rows_of_their_shards_in_order_and_a_damaged_shard_fails_alone(
    local_ray, make_pipeline, small_shards, tmp_path
):
    actors = set()
    damaged = small_shards / "part-3.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:4] + b"\xff" * 600 + whole[604:])  # the first page, not the footer
    own = Spoken("speaker_id", most_per_second=1000)  # a user's own step, which here keeps every row
    result = run(
        make_pipeline(small_shards, steps=[own], sink_options={"keep": ["speaker_id"]}),
        on_progress=lambda _: actors.update(processes("ModelActor")),
    )
    assert (result.exit_code, result.shards_committed) == (3, 5)
    assert list(result.shards_failed) == ["part-3.parquet"]
    assert not (tmp_path / "labels" / "part-3.parquet").exists()
    damaged.unlink()
    for source in sorted(small_shards.glob("*.parquet")):
        labels, rows = pq.read_table(tmp_path / "labels" / source.name), pq.read_table(source)
        assert labels.column_names == [
            "id", "speaker_id", "row", "seconds", "status", "error_type", "error_message", "pred_text", "pred_score",
        ]  # fmt: skip
        assert labels.column("id").to_pylist() == rows.column("id").to_pylist()
        assert labels.column("speaker_id").to_pylist() == rows.column("speaker_id").to_pylist()
        assert labels.column("row").to_pylist() == list(range(20))
        assert set(labels.column("status").to_pylist()) == {"ok"}
        assert pq.read_metadata(tmp_path / "labels" / source.name).metadata[b"raysp.fingerprint"].decode()
    assert actors
    assert psutil.wait_procs(actors, timeout=30)[1] == []  # they ended with the run, on a Ray that goes on


@pytest.mark.cluster
def test_a_hub_checkpoint_labels_like_its_folder_and_a_push_affects_no_run(
    local_ray, workers_hub_cache, make_pipeline, small_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workers_hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shard = next(small_shards.iterdir())
    lay_out(workers_hub_cache, CHECKPOINT)
    pipeline = make_pipeline(shard, checkpoint="owner/name")
    main = workers_hub_cache / "models--owner--name" / "refs" / "main"
    result = run(pipeline, on_plan=lambda _: main.write_text("f" * 40))  # of which there are no files
    assert (result.exit_code, result.rows) == (0, 20)
    raysp.run(make_pipeline(shard, sink="of a folder"), engine="here", progress=False)
    assert row_hash(tmp_path / "labels") == row_hash(tmp_path / "of a folder")
    main.write_text(COMMIT)
    assert run(pipeline).rows == 0  # goes on from what is there


def test_a_run_is_refused_before_it_plans_while_another_one_plans(
    without_ray, make_pipeline, small_shards, monkeypatch
):
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "0.1")
    planned = []

    def meanwhile() -> None:
        with pytest.raises(raysp.PlanError, match="is running on this sink"):  # so the first one's heart beats
            run(make_pipeline(small_shards / FEW), on_plan=planned.append)

    class Waiting(Spoken):
        """A step that is checked for long."""

        def check(self, schema: pa.Schema) -> None:
            meanwhile()

    assert run(make_pipeline(small_shards / FEW, steps=[Waiting("speaker_id")])).shards_committed == 2
    assert planned == []


@pytest.mark.parametrize("made", [(), ("new",), ("new", "labels")])
def test_a_run_that_is_refused_leaves_no_folder_that_it_made(without_ray, make_pipeline, tmp_path, made):
    tmp_path.joinpath(*made).mkdir(parents=True, exist_ok=True)
    before = [*tmp_path.rglob("*")]
    with pytest.raises(raysp.PlanError, match="no such file or folder"):
        run(make_pipeline(tmp_path / "missing", sink=str(tmp_path / "new" / "labels")))
    assert [*tmp_path.rglob("*")] == before


def test_an_error_of_the_program_in_the_decoder_ends_the_run_with_its_traceback(
    small_shards, without_ray, make_pipeline, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAYSP_DECODER_FAULTS", "RIFF=TypeError")
    with pytest.raises(raysp.RunError, match="TypeError in the decoder") as caught:
        run(make_pipeline(small_shards))
    assert "Traceback (most recent call last)" in str(caught.value)
    assert not [*(tmp_path / "labels").glob("*.parquet")]


def test_unusual_and_invalid_recordings_change_no_other_row(shared, without_ray, make_pipeline, tmp_path):
    files = [f for kind in ("odd", "bad") for f in sorted((shared / "data" / kind).iterdir()) if f.suffix != ".jsonl"]
    good = pq.read_table(sorted((shared / "data" / "digits").glob("*.parquet"))[0]).slice(0, 30).to_pylist()
    odd = [(file.name, file.read_bytes()) for file in files]
    valid = [(f"good-{row['id']}", row["audio"]["bytes"]) for row in good]
    mixed = [one for place in range(len(odd)) for one in (*odd[place : place + 1], *valid[place : place + 1])]
    (tmp_path / "mixed").mkdir()
    audio_shard(tmp_path / "mixed" / "mixed.parquet", mixed)
    audio_shard(tmp_path / "mixed" / "good.parquet", valid)
    assert run(replace(make_pipeline(tmp_path / "mixed"), max_error_rate=1)).exit_code == 0
    labels = pq.read_table(tmp_path / "labels" / "mixed.parquet").to_pylist()
    assert [row["id"] for row in labels] == [name for name, _ in mixed]
    alone = pq.read_table(tmp_path / "labels" / "good.parquet").to_pylist()
    texts = {row["id"]: row["pred_text"] for row in alone}
    assert {row["id"]: row["pred_text"] for row in labels if row["id"] in texts} == texts
    types = {row["id"]: row["error_type"] for row in labels}
    assert types["made__zero_bytes.wav"] == "no_audio"
    assert types["made__wav_nan_inf.wav"] == "invalid_audio"
    assert types["made__flac_bitrot.flac"] == "corrupt_audio"
    assert types["made__text_as_flac.flac"] == "unsupported_format"


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.parametrize(
    "moments", [pytest.param({2}, id="once"), pytest.param(set(range(1, 11)), id="ten times", marks=pytest.mark.soak)]
)
def test_no_row_is_lost_when_a_model_actor_is_killed(local_ray, make_pipeline, tmp_path, moments):
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    (tmp_path / "corpus").mkdir()
    for number in range(12):
        pq.write_table(rows.slice(10 * number, 10), tmp_path / "corpus" / f"part-{number:02}.parquet")
    raysp.run(make_pipeline(tmp_path / "corpus", sink="undisturbed"), engine="here", progress=False)
    killed = []

    def kill(progress):
        if progress.counts.blocks in moments - {blocks for blocks, _ in killed}:
            deadline = time.monotonic() + 30
            while not (actors := processes("ModelActor")) and time.monotonic() < deadline:
                time.sleep(0.1)  # the one that takes the place of the last one killed
            for actor in actors:
                actor.kill()
                killed.append((progress.counts.blocks, actor))

    result = run(make_pipeline(tmp_path / "corpus"), on_progress=kill)
    assert len(killed) >= len(moments) - 2  # the last blocks may be done when their moment comes
    assert result.exit_code == 0
    assert row_hash(tmp_path / "labels") == row_hash(tmp_path / "undisturbed")
