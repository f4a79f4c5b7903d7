"""LoRA as a value: defaults, and what is refused with which words."""

import pytest

from raysp import LoRA, SpecError


def test_lora_has_a_rank_and_comes_back_from_its_representation():
    assert repr(LoRA(8)) == "LoRA()"
    assert repr(LoRA(4, alpha=8)) == "LoRA(4, alpha=8.0)"
    made = LoRA(4, targets=["q_proj"])
    assert made.targets == ("q_proj",)
    assert eval(repr(made)) == made != LoRA(4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "LoRA.rank: found 0; input should be greater than or equal to 1"),
        ({"alpha": 0}, "LoRA.alpha: found 0; input should be greater than 0"),
        ({"dropout": 1}, "LoRA.dropout: found 1; input should be less than 1"),
        ({"targets": []}, r"LoRA.targets: found \[\]; .* at least 1 item"),
        ({"targets": ["q_proj", ""]}, r"LoRA.targets.1: found ''; .* at least 1 character"),
        ({"r": 4}, "LoRA has no field 'r'"),
    ],
)
def test_wrong_values_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        LoRA(**fields)
