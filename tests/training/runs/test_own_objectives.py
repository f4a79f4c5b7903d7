"""An objective of one's own, transducers, on real digits: what is learnt, resuming, evaluation, several workers."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import raysp
from raysp import finetune
from raysp.models import ParakeetFeatureExtractor, ParakeetProcessor, ParakeetTokenizer, load_checkpoint
from raysp.models import parakeet_transducers as transducers
from tests import kit
from tests.models.oracles import transformers
from tests.training.criteria import planned_training
from tests.training.runs.test_pieces import SMALL, WORDS, write_digits

sys.path.insert(0, str(Path(raysp.__file__).parents[1] / "pipelines" / "transducer"))
from transducer import Transducer

PIECES = ["<unk>", *(f"▁{word}" for word in WORDS), "▁", "<pad>", "<blank>"]


def checkpoint_of(kind, folder):
    """Write random weights with a vocabulary of the digits, each of them a piece."""
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in PIECES[:-2]], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens([AddedToken(one, special=True) for one in ("<unk>", "<pad>", "<blank>")])
    tokenizer = ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")
    config = getattr(transducers, f"Parakeet{kind}Config")(
        encoder_config=SMALL,
        decoder_hidden_size=64,
        num_decoder_layers=1,
        vocab_size=len(PIECES),
        pad_token_id=PIECES.index("<pad>"),
        blank_token_id=PIECES.index("<blank>"),
    )
    getattr(transducers, f"ParakeetFor{kind}")(config).save_pretrained(folder)
    ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["RNNT", "TDT"])
def checkpoint(request, tmp_path_factory):
    return checkpoint_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "a.parquet")


def recipe(digits, checkpoint, sink, *, steps=6, micro_batches=1, **fields):
    return raysp.Finetune(
        raysp.Shards(digits, text="text"),
        steps=[raysp.Decode()],
        objective=Transducer(str(checkpoint)),
        schedule=raysp.Schedule(steps=steps, learning_rate=2e-3, head_rate=1.0, shape="constant"),
        batching=raysp.Batching(seconds=12, micro_batches=micro_batches),
        sink=raysp.Checkpoint(str(sink), every=2),
        pool=raysp.Pool(1, cpus=1),
        **fields,
    )


@pytest.mark.drivers
@pytest.mark.slow
def test_digits_are_learnt_and_labelled(digits, checkpoint, tmp_path):
    evaluation = raysp.Evaluation(raysp.Shards(digits, text="text"), every=40)
    made = recipe(digits, checkpoint, tmp_path / "out", steps=120, evaluation=evaluation)
    assert finetune(made).is_done
    best = json.loads((tmp_path / "out" / "metrics.json").read_text())["best"]
    assert best == {"metric": "wer", "value": 0.0, "step": best["step"]}
    label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Transcript(words=True)])
    sink = raysp.Parquet(str(tmp_path / "labels"), keep=["text"])
    raysp.run(
        raysp.Pipeline(raysp.Shards(digits), steps=[raysp.Decode(), label], sink=sink), engine="here", progress=False
    )
    found = pq.read_table(tmp_path / "labels" / "a.parquet")
    assert found.column("pred_text").to_pylist() == found.column("text").to_pylist()


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_its_checkpoint_loads_in_both_libraries(digits, checkpoint, tmp_path):
    finetune(recipe(digits, checkpoint, tmp_path / "once", micro_batches=2))
    stopped = finetune(recipe(digits, checkpoint, tmp_path / "out", micro_batches=2), should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    result = finetune(recipe(digits, checkpoint, tmp_path / "out", micro_batches=2))
    assert (result.steps, result.is_done) == (6, True)
    once, found = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "out"))
    assert all(torch.equal(once[name], value) for name, value in found.items())
    loaded = load_checkpoint(tmp_path / "out")
    theirs, info = getattr(transformers, type(loaded.model).__name__).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] | info["unexpected_keys"]
    features, tokens = torch.randn(1, 80, 80), torch.tensor([[loaded.model.blank, 3, 5]])
    with torch.inference_mode():
        expected = theirs.eval()(features, decoder_input_ids=tokens).logits
        torch.testing.assert_close(
            loaded.model(features, decoder_input_ids=tokens).logits, expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.slow
def test_workers_import_its_modules_as_the_driver_read_them(digits, checkpoint, tmp_path):
    """The folder of the recipe is on no path of the workers."""
    for file in (Path(raysp.__file__).parents[1] / "pipelines" / "transducer").glob("*.py"):
        shutil.copy(file, tmp_path)
    code = repr(recipe(digits, checkpoint, tmp_path / "out", micro_batches=2))
    (tmp_path / "recipe.py").write_text(f"from raysp import *\nfrom transducer import Transducer\n\nrecipe = {code}\n")
    line = ["finetune", tmp_path / "recipe.py", "--set", "pool.actors=2", "--json"]
    ran = kit.run_apart(line, RAYSP_ENGINE="ray")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["steps"] == 6


def test_its_modules_are_part_of_the_fingerprint(digits, checkpoint, tmp_path):
    plan, prepared = planned_training(recipe(digits, checkpoint, tmp_path / "out"))
    assert plan.facts["objective"] == "Transducer"
    assert {"code.transducer.py", "code.transducer_loss.py"} <= prepared.parts.keys()
