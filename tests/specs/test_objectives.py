"""Objectives: defaults, and what is refused with which words."""

import pytest

import raysp
from raysp import CTC, Classify, LoRA, Seq2Seq, Speakers, SpecError


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Classify, {}, "Classify needs 'column'"),
        (Classify, {"column": "c", "classes": ["a", "a"]}, r"found 'a' twice in classes; name each class once"),
        (Speakers, {"column": "c", "margin": 1.5}, "Speakers.margin: found 1.5; input should be less than or equal to"),
        (Seq2Seq, {"decoder": "https://me:secret@host/d"}, "the url contains a password"),
        (Classify, {"column": "c", "freeze": "base", "lora": LoRA()}, "found freeze='base' and lora, which trains"),
        (CTC, {"freeze": "base", "freeze_steps": 9}, "found freeze='base', which holds to the end, and freeze_steps=9"),
        (CTC, {"freeze": "base", "adapter": "tur"}, "found freeze='base' and adapter, which trains parts of the base"),
        (CTC, {"lora": LoRA(), "adapter": "tur"}, "found lora and adapter, which both choose the weights"),
        (CTC, {"random_weights": True, "freeze": "feature_encoder"}, "found random_weights and freeze, which would"),
        (CTC, {"adapter": "../tur"}, r"CTC.adapter: found '../tur'; string should match pattern"),
    ],
)
def test_wrong_values_are_refused(cls, fields, message):
    with pytest.raises(SpecError, match=message):
        cls("checkpoint", **fields)


def a_recipe(objective: object, *, best: str, text: str | None = "text") -> raysp.Finetune:
    source = raysp.Shards("in", text=text)
    return raysp.Finetune(
        source,
        steps=[raysp.Decode()],
        objective=objective,
        schedule=raysp.Schedule(epochs=1),
        evaluation=raysp.Evaluation(source, best=best),
        sink=raysp.Checkpoint("out"),
    )


@pytest.mark.parametrize(
    ("objective", "metrics"),
    [
        (Seq2Seq("c"), ("wer", "cer", "loss")),
        (Speakers("c", column="s"), ("eer", "accuracy", "f1", "loss")),
        (Classify("c", column="s"), ("accuracy", "f1", "loss")),
    ],
)
def test_each_objective_has_its_metrics(objective, metrics):
    for name in ("wer", "cer", "accuracy", "f1", "eer", "loss"):
        if name in metrics:
            assert a_recipe(objective, best=name).evaluation.best == name
        else:
            with pytest.raises(SpecError, match=f"found evaluation.best='{name}'; .* has {', '.join(metrics)}$"):
                a_recipe(objective, best=name)
