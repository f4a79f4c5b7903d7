"""What specs of a training, its plan and its checkpoint refuse: a row for each fault, with words of its message."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from raysp import (
    CTC,
    CheckpointError,
    Classify,
    Evaluation,
    LoRA,
    Mix,
    PlanError,
    Pool,
    RunError,
    Schedule,
    Seq2Seq,
    Shards,
    Speakers,
    SpecError,
    Text,
    finetune,
)
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, words_table
from tests.training.checkpoints import of_english, parakeet
from tests.training.conftest import Places
from tests.training.objectives.originals import save_decoder

DEV = Evaluation(Shards("dev", text="text"))


def spec(**fields: Any) -> object:
    return a_recipe("in", Path("c"), "out", **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: raysp.Gain((3, -3)), "expected the lower bound first"),
        (lambda: raysp.Speed(()), r"Speed.factors: found \[\]; .* at least 1 item"),
        (lambda: spec(augment=[raysp.Gain(), raysp.Speed()]), r"found Speed at the places \[1\] of augment; expected"),
        (lambda: Classify("c"), "Classify needs 'column'"),
        (lambda: Classify("c", column="c", classes=["a", "a"]), r"found 'a' twice in classes; name each class once"),
        (lambda: Speakers("c", column="c", margin=1.5), "Speakers.margin: found 1.5; input should be less than or"),
        (lambda: Seq2Seq("c", decoder="https://me:secret@host/d"), "the url contains a password"),
        (lambda: Classify("c", column="c", freeze="base", lora=LoRA()), "found freeze='base' and lora, which trains"),
        (lambda: CTC("c", freeze="base", freeze_steps=9), "freeze='base', which holds to the end, and freeze_steps=9"),
        (lambda: CTC("c", freeze="base", adapter="tur"), "freeze='base' and adapter, which trains parts of the base"),
        (lambda: CTC("c", lora=LoRA(), adapter="tur"), "found lora and adapter, which both choose the weights"),
        (lambda: CTC("c", random_weights=True, freeze="feature_encoder"), "random_weights and freeze, which would"),
        (lambda: CTC("c", adapter="../tur"), r"CTC.adapter: found '../tur'; string should match pattern"),
        (lambda: CTC("c", masks={"mask_time_prob": -0.1}), "CTC.masks: .*found -0.1; input should be greater than or"),
        (lambda: CTC("c", vocabulary="bpe:9"), r"found vocabulary='bpe:9'; expected a number of tokens from 10 to"),
        (lambda: CTC("c", vocabulary="bpe:100", adapter="tur"), "of adapters consist of characters: use vocabulary='b"),
        (lambda: Mix({"en/*": 1}), r"found parts \['en/\*'\]; expected at least two patterns, each once"),
        (lambda: Mix(["en/*", "tr/*"]), "found neither weights nor temperature; give weights"),
        (lambda: Mix({"en/*": 1, "tr/*": 2}, temperature=2), "found weights and temperature; give weights"),
        (lambda: spec(evaluation=Evaluation(DEV.source, others={"noisy": Shards("n")})), "others.noisy.text is not"),
        (lambda: Evaluation(DEV.source, others={"a/b": DEV.source}), "others"),
        (lambda: spec(evaluation=Evaluation(DEV.source, best="eer")), "found evaluation.best='eer'; CTC has wer, cer"),
        (lambda: spec(objective=Classify("c", column="s"), evaluation=DEV), "best='wer'; Classify has accuracy, f1"),
        (lambda: raysp.Schedule(steps=1, optimizer="NAdam"), "expected a function at the top level of a module"),
        (lambda: spec(callbacks=[lambda record: None]), "callbacks.*expected a function at the top level of a module"),
    ],
)  # fmt: skip
def test_specs_that_have_no_meaning_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def classes(at: Places, column: str = "speaker", **fields: Any) -> Classify:
    return Classify(str(at.headless), column=column, **fields)


def dev(at: Places, **fields: Any) -> Evaluation:
    return Evaluation(Shards(at.words, text="text"), **fields)


def language(at: Places, adapter: bytes | None) -> CTC:
    """Return the objective of a language that a checkpoint of English lacks, with this file of its adapter."""
    folder = of_english(at.folder / "english")
    if adapter is not None:
        (folder / "adapter.tur.safetensors").write_bytes(adapter)
    return CTC(str(folder), adapter="tur", vocabulary="keep", text=Text("lower"))


def writer(at: Places, **fields: Any) -> Seq2Seq:
    return Seq2Seq(str(at.headless), decoder=str(save_decoder("gpt2", at.folder / "decoder")), **fields)


def of_text(at: Places, text: str, seconds: float = 0.5) -> Shards:
    """Return a corpus of one row."""
    audio = pa.array([{"bytes": wav(round(16_000 * seconds)), "path": None}], AUDIO)
    write_shard(at.folder / "row" / "a.parquet", table=pa.table({"id": ["a"], "audio": audio, "text": [text]}))
    return Shards(f"{at.folder}/row/*.parquet", text="text")


def undecodable(at: Places) -> str:
    """Return the url of recordings that cannot be decoded."""
    table = words_table(3).set_column(1, "audio", [[{"bytes": b"no", "path": None}] * 3])
    write_shard(at.folder / "broken" / "a.parquet", table=table)
    return f"{at.folder}/broken/*.parquet"


KEPT = {"vocabulary": "keep", "text": Text()}


def vocabulary(at: Places, content: str) -> dict[str, Any]:
    """Return the fields of a head with the vocabulary of a file."""
    (at.folder / "vocab.json").write_text(content)
    return {"objective": {"vocabulary": str(at.folder / "vocab.json")}}


def by(optimizer: str) -> dict[str, Any]:
    """Return the schedule by an optimiser of a user."""
    return {"schedule": Schedule(steps=2, optimizer=f"tests.training.optimizers:{optimizer}")}


ROW: dict[str, tuple[Callable[[Places], dict[str, Any]], str]] = {
    "rows: all too long": (
        lambda at: {"steps": [raysp.Decode(0.1)]},
        "no row is left to train on: 30 rows, left out: 30 too_long",
    ),
    "rows: above the default limit": (
        lambda at: {"source": of_text(at, "six", 121)},
        r"no row is left .* 1 too_long \(above 120 s; Decode\(max_seconds=\.\.\.\)",
    ),
    "rows: letters of the other case": (
        lambda at: {"source": of_text(at, "SIX"), "objective": KEPT},
        r"outside: 'I' \(1\), 'S' \(1\), 'X' \(1\); text=raysp\.Text\('lower'\) brings them into it$",
    ),
    "rows: letters that the vocabulary lacks": (
        lambda at: {"source": of_text(at, "Größe"), "objective": KEPT},
        r"left out: 1 outside_vocabulary; characters: 29 tokens; outside: 'G' \(1\), 'ß' \(1\), 'ö' \(1\)$",
    ),
    "rows: fewer than workers": (
        lambda at: {"source": of_text(at, "six"), "pool": Pool(2, cpus=1)},
        "1 row to train on, and 2 workers: lower pool.actors",
    ),
    "pool": (lambda at: {"pool": Pool(4)}, r"pool.actors=4: a step has 2 micro-batches, .*; lower pool.actors"),
    "device": (lambda at: {"device": "cuda"}, "device='cuda': found no GPU on this machine; set device='cpu'"),
    "text: no such column": (lambda at: {"source": Shards(at.words, text="sentence")}, "sentence"),
    "text: numbers": (
        lambda at: {"source": Shards(at.words, text="age")},
        "column 'age' holds double, expected strings: source.text holds the texts of rows; set it to a column",
    ),
    "vocabulary: fewer tokens than characters": (
        lambda at: {"objective": {"vocabulary": "bpe:10"}},
        "found 'bpe:10'; the texts have 15 characters: set it to 'bpe:18' or more",
    ),
    "vocabulary: no file": (lambda at: {"objective": {"vocabulary": "x"}}, "expected 'keep', 'build' or a vocab.json"),
    "vocabulary: a list": (lambda at: vocabulary(at, "[1]"), "expected an object of tokens with the ids 0, 1"),
    "vocabulary: ids with a gap": (
        lambda at: vocabulary(at, '{"<pad>": 0, "<unk>": 2, "|": 3}'),
        "expected an object of tokens with the ids 0, 1, 2",
    ),
    "vocabulary: no delimiter": (
        lambda at: vocabulary(at, '{"<pad>": 0, "<unk>": 1, "a": 2}'),
        r"found none of the tokens \|; add one",
    ),
    "masks": (lambda at: {"objective": {"masks": {"mask_tiem_prob": 0.1}}}, r"objective.masks: .*mask_tiem_prob"),
    "vocabulary: of characters, for a model of pieces": (
        lambda at: {"objective": CTC(str(parakeet(at.folder / "parakeet")), vocabulary="build")},
        "ParakeetForCTC has one of pieces of words: use vocabulary='keep'",
    ),
    "optimiser: none": (
        lambda at: by("nothing"),
        r"schedule.optimizer: '.*:nothing' returned a NoneType; expected a torch.optim.Optimizer",
    ),
    "optimiser: of other weights": (
        lambda at: by("others"),
        r"schedule.optimizer: '.*:others' returned an optimiser of other parameters or rates; expected one",
    ),
    "optimiser: an error": (
        lambda at: by("failing"),
        r"schedule.optimizer: '.*:failing' failed: tests/training/optimizers.py:\d+: KeyError: 'momentum'",
    ),
    "evaluation: no such group": (lambda at: {"evaluation": dev(at, by=["gender"])}, "column 'gender'"),
    "evaluation: rows too short": (
        lambda at: {"evaluation": dev(at, max_seconds=0.01)},
        r"max_seconds=0\.01: rows of that length are too short for the model",
    ),
    "evaluation: a further corpus without shards": (
        lambda at: {"evaluation": dev(at, others={"noisy": Shards(f"{at.folder}/gone/*.parquet", text="text")})},
        "^evaluation.others.noisy.url: ",
    ),
    "evaluation: numbers as classes": (
        lambda at: {"objective": classes(at), "evaluation": dev(at, column="age", best="accuracy")},
        "evaluation.*column 'age' holds double, expected strings or integers",
    ),
    "augment: no shards": (
        lambda at: {"augment": [raysp.Noise(f"{at.folder}/none/*.parquet")]},
        r"augment\.0\.source\.url: ",
    ),
    "augment: no recordings": (
        lambda at: {"augment": [raysp.Room(undecodable(at))]},
        r"augment\.0\.source: .*: no recording can be decoded",
    ),
    "mix: a shard in no part": (
        lambda at: {"mix": Mix({"0*": 1, "2*": 1})},
        r"mix.parts: the shard '1.parquet' is in none of '0\*', '2\*'; expected each shard in one",
    ),
    "mix: a shard in two parts": (
        lambda at: {"mix": Mix({"*": 1, "1*": 1})},
        r"mix.parts: the shard '1.parquet' is in '\*' and '1\*'",
    ),
    "mix: an empty part": (
        lambda at: {"mix": Mix({"*": 1, "2*": 1})},
        r"mix.parts: '2\*' has no row to train on; the corpus has the shards 0.parquet, 1.parquet",
    ),
    "LoRA: no such layers": (
        lambda at: {"objective": classes(at, lora=LoRA(targets=["query"]))},
        r"targets=\['query'\], .* the layers are intermediate_dense, k_proj, ",
    ),
    "LoRA: the head": (
        lambda at: {"objective": classes(at, lora=LoRA(targets=["classifier"]))},
        r"targets=\['classifier'\]",
    ),
    "speakers: short crops": (
        lambda at: {"objective": Speakers(at.listener, column="speaker", crop_seconds=0.1)},
        r"found objective.crop_seconds=0.1; expected at least 0\.\d+, the shortest",
    ),
    "classes: no such column": (lambda at: {"objective": classes(at, "gender")}, "column 'gender'"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROW)
def test_a_plan_that_cannot_be_trained_is_refused_before_anything_is_written(at, name):
    make, message = ROW[name]
    fields = make(at)
    plans = raysp.estimate if "pool" in fields else finetune
    with pytest.raises(PlanError, match=message):
        plans(a_recipe(at.words, at.tiny, at.folder / "out", **fields))
    assert not (at.folder / "out" / "config.json").exists()


CHECKPOINTS: dict[str, tuple[Callable[[Places], Any], str]] = {
    "no head to keep": (
        lambda at: CTC(str(at.headless), vocabulary="keep"),
        "UniSpeechModel has no CTC head whose vocabulary could be kept",
    ),
    "no adapter layers": (
        lambda at: CTC(str(at.tiny), vocabulary="build", adapter="tur", text=Text("lower")),
        "unispeech has adapter layers only with do_stable_layer_norm=True",
    ),
    "no adapter of the language": (
        lambda at: language(at, None),
        r"adapter.tur.safetensors not found; complete the checkpoint, or set",
    ),
    "an adapter without its language": (lambda at: language(at, b""), "target_lang is 'tur', expected one of: eng"),
    "no head for speakers": (
        lambda at: Speakers(str(at.headless), column="speaker"),
        "UniSpeech has none of the classes UniSpeechForXVector",
    ),
    "no decoder": (
        lambda at: Seq2Seq(str(at.headless)),
        "UniSpeechModel has no text decoder; set objective.decoder to a text model with one",
    ),
    "a prompt that the decoder cannot write": (
        lambda at: writer(at, prompt_tokens=["<xx>"]),
        r"'<xx>': not in the decoder's vocabulary",
    ),
    "an encoder as decoder": (
        lambda at: Seq2Seq(str(at.headless), decoder=str(at.headless)),
        "is not a text model with a decoder: use one",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit_its_objective_is_refused(at, name):
    make, message = CHECKPOINTS[name]
    with pytest.raises(CheckpointError, match=message):
        finetune(a_recipe(at.words, at.tiny, at.folder / "out", objective=make(at)))


@pytest.mark.parametrize("verb", [finetune, raysp.estimate])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"callbacks": ["nowhere:keep"]}, "'nowhere:keep' cannot be imported: .*No module named 'nowhere'"),
        ({"evaluation": dataclasses.replace(DEV, normalise="lettres")}, "evaluation.normalise: found .* 'lettres'"),
    ],
)
def test_callbacks_and_normalisations_that_there_are_not_are_refused_by_plans_too(at, verb, fields, message):
    with pytest.raises(SpecError, match=message):
        verb(a_recipe(at.words, at.tiny, at.folder / "out", **fields))
    assert not (at.folder / "out").exists()


def test_the_state_of_an_optimiser_that_is_not_a_tensor_is_not_committed(at):
    with pytest.raises(RunError, match=r"schedule.optimizer: found int in its state 'calls'; expected tensors"):
        finetune(a_recipe(at.words, at.tiny, at.folder / "out", **by("counting")))


def test_without_peft_the_plan_names_the_extra(at, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    recipe = a_recipe(at.words, at.tiny, at.folder / "out", objective=classes(at, lora=LoRA(4)))
    with pytest.raises(PlanError, match=r"needs the package peft, which is not installed; pip install 'raysp\[lora\]'"):
        finetune(recipe)
