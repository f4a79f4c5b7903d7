"""Objectives: defaults, and what is refused with which words."""

import pytest

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
