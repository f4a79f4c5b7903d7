"""The comparison of weights by name and shape, without a model or a file."""

import pytest

from raysp import CheckpointError
from raysp.models.files.comparison import Difference, compare, short

MODEL = {"encoder.weight": (4, 3), "encoder.bias": (4,), "head.weight": (2, 4)}


def test_equal_weights_do_not_differ():
    difference = compare(dict(reversed(MODEL.items())), MODEL)
    assert difference == Difference()
    difference.check("folder")


def test_a_difference_lists_missing_unexpected_and_mismatched_names():
    difference = compare({"encoder.weight": (4, 5), "pooler": (1,), "head.weight": (2, 4)}, MODEL)
    assert difference == Difference(("encoder.bias",), ("pooler",), (("encoder.weight", (4, 5), (4, 3)),))
    assert difference.names == ["encoder.bias", "pooler", "encoder.weight"]


def test_optional_names_are_dropped_from_a_difference_but_keep_their_shapes():
    difference = compare({"encoder.weight": (4, 5), "pooler": (1,), "head.weight": (2, 4)}, MODEL)
    left = difference.without(["encoder.bias", "pooler", "encoder.weight"])
    assert left == Difference(mismatched=(("encoder.weight", (4, 5), (4, 3)),))
    assert left.without(shapes=["encoder.weight"]) == Difference()


def test_names_that_differ_are_refused_with_both_sides():
    with pytest.raises(CheckpointError, match=r"^folder: .*missing head; unexpected pooler: use the config\.json"):
        Difference(("head",), ("pooler",)).check("folder")


def test_shapes_that_differ_are_refused_with_both():
    with pytest.raises(CheckpointError, match=r"^folder: .*encoder is \(4, 5\), expected \(4, 3\): use the config"):
        Difference(mismatched=(("encoder", (4, 5), (4, 3)),)).check("folder")


def test_a_long_list_of_names_is_cut_with_its_count():
    assert short([]) == "none"
    assert short("abcdefgh") == "a, b, c, d, e, f, g, h"
    assert short("abcdefghij") == "a, b, c, d, e, f, g, h and 2 more (10 in all)"
