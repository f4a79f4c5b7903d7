"""What specs of a training, its plan and its checkpoint refuse: a row for each fault, with words of its message."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    Seq2Seq,
    Shards,
    Speakers,
    SpecError,
    Text,
    finetune,
)
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, words_table

DEV = Evaluation(Shards("dev", text="text"))


def spec(**fields: Any) -> object:
    return a_recipe("in", Path("c"), "out", **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: raysp.Gain((3, -3)), "expected the lower bound first"),
        (lambda: raysp.Noise("in", snr=(9, 1)), "expected the lower bound first"),
        (lambda: raysp.Speed(()), r"Speed.factors: found \[\]; .* at least 1 item"),
        (lambda: raysp.Speed((0.0,)), "greater than 0"),
        (lambda: raysp.Room("in", share=2), "less than or equal to 1"),
        (lambda: spec(augment=[raysp.Gain(), raysp.Speed()]), r"found Speed at the places \[1\] of augment; expected"),
        (lambda: CTC("c", vocabulary="bpe:9"), r"found vocabulary='bpe:9'; expected a number of tokens from 10 to"),
        (lambda: CTC("c", vocabulary="bpe:many"), "expected a number of tokens from 10 to"),
        (lambda: CTC("c", vocabulary="bpe:100", adapter="tur"), "of languages are of characters: use vocabulary='buil"),
        (lambda: Mix({"en/*": 1}), r"found parts \['en/\*'\]; expected at least two patterns, each once"),
        (lambda: Mix(["en/*", "tr/*"]), "found neither weights nor temperature; give weights"),
        (lambda: Mix({"en/*": 1, "tr/*": 2}, temperature=2), "found weights and temperature; give weights"),
        (lambda: Mix({"en/*": 0, "tr/*": 2}), "greater than 0"),
        (lambda: spec(evaluation=Evaluation(DEV.source, others={"noisy": Shards("n")})), "others.noisy.text is not"),
        (lambda: Evaluation(DEV.source, others={"a/b": DEV.source}), "others"),
        (lambda: spec(evaluation=Evaluation(DEV.source, best="eer")), "found evaluation.best='eer'; CTC has wer, cer"),
        (lambda: spec(objective=Classify("c", column="s"), evaluation=DEV), "best='wer'; Classify has accuracy, f1"),
        (lambda: spec(objective=Speakers("c", column="s"), evaluation=DEV), "best='wer'; Speakers has eer, accuracy"),
        (lambda: raysp.Schedule(steps=1, optimizer="NAdam"), "expected a function at the top level of a module"),
        (lambda: spec(callbacks=[lambda record: None]), "callbacks.*expected a function at the top level of a module"),
    ],
)  # fmt: skip
def test_specs_that_have_no_meaning_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


@dataclass(frozen=True)
class Places:
    """Checkpoints and corpora of the rows below."""

    words: str
    tiny: Path
    headless: Path
    listener: str
    folder: Path

    def classes(self, column: str = "speaker", **fields: Any) -> Classify:
        return Classify(str(self.headless), column=column, **fields)

    def dev(self, name: str = "words", text: str = "text", **fields: Any) -> Evaluation:
        url = self.words if name == "words" else f"{self.folder}/{name}/*.parquet"
        return Evaluation(Shards(url, text=text), **fields)

    def of_text(self, text: str, seconds: float = 0.5) -> Shards:
        """Return a corpus of one row."""
        audio = pa.array([{"bytes": wav(round(16_000 * seconds)), "path": None}], AUDIO)
        write_shard(self.folder / "row" / "a.parquet", table=pa.table({"id": ["a"], "audio": audio, "text": [text]}))
        return Shards(f"{self.folder}/row/*.parquet", text="text")

    def broken(self) -> str:
        """Return the url of recordings that cannot be decoded."""
        table = words_table(3).set_column(1, "audio", [[{"bytes": b"no", "path": None}] * 3])
        write_shard(self.folder / "broken" / "a.parquet", table=table)
        return f"{self.folder}/broken/*.parquet"


@pytest.fixture
def at(words, tiny, headless, listener, tmp_path) -> Places:
    return Places(words, tiny, headless, listener, tmp_path)


KEPT = {"vocabulary": "keep", "text": Text()}
ROW: dict[str, tuple[Callable[[Places], dict[str, Any]], str]] = {
    "rows: all too long": (
        lambda at: {"steps": [raysp.Decode(0.1)]},
        "no row is left to train on: 30 rows, left out: 30 too_long",
    ),
    "rows: above the default limit": (
        lambda at: {"source": at.of_text("six", 121)},
        r"no row is left .* 1 too_long \(above 120 s; Decode\(max_seconds=\.\.\.\)",
    ),
    "rows: letters of the other case": (
        lambda at: {"source": at.of_text("SIX"), "objective": KEPT},
        r"outside: 'I' \(1\), 'S' \(1\), 'X' \(1\); text=raysp\.Text\('lower'\) brings them into it$",
    ),
    "rows: letters that the vocabulary lacks": (
        lambda at: {"source": at.of_text("Größe"), "objective": KEPT},
        r"left out: 1 outside_vocabulary; characters: 29 tokens; outside: 'G' \(1\), 'ß' \(1\), 'ö' \(1\)$",
    ),
    "rows: fewer than workers": (
        lambda at: {"source": at.of_text("six"), "pool": Pool(2, cpus=1)},
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
    "masks": (lambda at: {"objective": {"masks": {"mask_tiem_prob": 0.1}}}, r"objective.masks: .*mask_tiem_prob"),
    "evaluation: no shards": (lambda at: {"evaluation": at.dev("none")}, "evaluation.source.url: .*none"),
    "evaluation: no such group": (lambda at: {"evaluation": at.dev(by=["gender"])}, "column 'gender'"),
    "evaluation: no such text": (lambda at: {"evaluation": at.dev(text="sentence")}, "column 'sentence'"),
    "evaluation: rows too short": (
        lambda at: {"evaluation": at.dev(max_seconds=0.01)},
        r"max_seconds=0\.01: rows of that length are too short for the model",
    ),
    "evaluation: a further corpus without shards": (
        lambda at: {"evaluation": at.dev(others={"noisy": Shards(f"{at.folder}/gone/*.parquet", text="text")})},
        "^evaluation.others.noisy.url: ",
    ),
    "evaluation: numbers as classes": (
        lambda at: {"objective": at.classes(), "evaluation": at.dev(column="age", best="accuracy")},
        "evaluation.*column 'age' holds double, expected strings or integers",
    ),
    "augment: no shards": (
        lambda at: {"augment": [raysp.Noise(f"{at.folder}/none/*.parquet")]},
        r"augment\.0\.source\.url: ",
    ),
    "augment: no recordings": (
        lambda at: {"augment": [raysp.Room(at.broken())]},
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
        lambda at: {"objective": at.classes(lora=LoRA(targets=["query"]))},
        r"targets=\['query'\], .* the layers are intermediate_dense, k_proj, ",
    ),
    "LoRA: the head": (
        lambda at: {"objective": at.classes(lora=LoRA(targets=["classifier"]))},
        r"targets=\['classifier'\]",
    ),
    "speakers: short crops": (
        lambda at: {"objective": Speakers(at.listener, column="speaker", crop_seconds=0.1)},
        r"found objective.crop_seconds=0.1; expected at least 0\.\d+, the shortest",
    ),
    "classes: numbers with a fraction": (
        lambda at: {"objective": at.classes("age")},
        "column 'age' holds double, expected strings or integers, one for each row",
    ),
    "classes: no such column": (lambda at: {"objective": at.classes("gender")}, "column 'gender'"),
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
    "no head for speakers": (
        lambda at: Speakers(str(at.headless), column="speaker"),
        "UniSpeech has none of the classes UniSpeechForXVector",
    ),
    "no decoder": (
        lambda at: Seq2Seq(str(at.headless)),
        "UniSpeechModel has no text decoder; set objective.decoder to a text model with one",
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


def test_without_peft_the_plan_names_the_extra(at, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    recipe = a_recipe(at.words, at.tiny, at.folder / "out", objective=at.classes(lora=LoRA(4)))
    with pytest.raises(PlanError, match=r"needs the package peft, which is not installed; pip install 'raysp\[lora\]'"):
        finetune(recipe)
