"""Cohorts on the stand-in device: the texts of `generate`, and no bit or shape that depends on other rows.

The device computes by the kernels of a CPU: bits show that no value of a row reaches another one. That a card's kernels
keep the bits of a row at each place of one shape is what its certificate measures.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from raysp.crossing import fetch
from raysp.models import SpeechEncoderDecoderModel
from raysp.models.decoder import cohorts
from raysp.models.decoder.cohorts import LEAST_ROOM, places_of, room_frames
from raysp.models.decoder.cohorts import cohorts as divided
from raysp.models.decoder.graphed_steps import GraphedSteps
from tests.device.stand_in import NAME, counted
from tests.models.decoder import test_texts_in_hand as on_host
from tests.models.decoder.test_texts_in_hand import DECODERS, ENDS, OPTIONS
from tests.models.encoder.test_encoder_packs import Arithmetic
from tests.soaked import some

WAYS = ("greedy", "prompt", "beams", "sampling")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ROWS, TOKENS, PLACES = 6, 8, 8
LENGTHS = (30, 128, 1, 129, 60, 140)
"""Frames of rows; two rows have larger rooms than the others."""


@pytest.fixture(autouse=True)
def few_places(monkeypatch) -> None:
    """Take fewer places than on a card, to see several cohorts."""
    monkeypatch.setattr(cohorts, "MOST_ROWS", PLACES)


@cache
def model(kind: str, dtype: torch.dtype) -> SpeechEncoderDecoderModel:
    made = on_host.model.__wrapped__(kind, dtype=dtype).to(NAME)
    made.decoder.tie_weights()
    return made


def frames(dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)  # texts of different lengths in all cases
    return [torch.randn(1, length, 36, generator=draw).to(dtype).to(NAME) for length in LENGTHS]


@torch.inference_mode()
def written(one: SpeechEncoderDecoderModel, rows: Sequence[Tensor], order: Sequence[int], **options: Any) -> list[Any]:
    """Return ids and log-probabilities, up to the end of each text, by the numbers of rows."""
    given: dict[str, Any] = {"eos_token_id": ENDS, "max_new_tokens": TOKENS, **options}
    if given.get("do_sample"):
        given["generators"] = [torch.Generator(NAME).manual_seed(row) for row in order]
    if "decoder_input_ids" in given:
        given["decoder_input_ids"] = given["decoder_input_ids"].to(NAME)
    found: dict[int, Any] = {}
    for texts in one.generate_cohorts([rows[row] for row in order], **given):
        all_ids, all_log_probs = fetch(texts.ids_RT, texts.log_probs_RN)
        assert texts.ids_RT.shape[0] == texts.cohort.num_places
        for place, row in enumerate(texts.cohort.rows):
            ids = all_ids[place].tolist()
            first = len(ids) - all_log_probs.shape[1]
            end = next((at + 1 for at in range(first, len(ids)) if ids[at] in given["eos_token_id"]), len(ids))
            found[order[row]] = ids[:end], all_log_probs[place, : end - first].tolist()
    return [found[row] for row in sorted(found)]


@pytest.mark.parametrize(
    ("kind", "name", "dtype"),
    some(
        itertools.product(DECODERS, WAYS, DTYPES),
        *(("bart", name, "bfloat16") for name in WAYS),
        *(("bart", "greedy", "float16"), ("mbart", "beams", "float16")),
        *(("gpt2", "greedy", "bfloat16"), ("bert", "beams", "bfloat16")),
    ),
)
def test_no_other_row_reaches_a_bit_of_a_text_or_of_its_score(kind, name, dtype):
    one, rows = model(kind, DTYPES[dtype]), frames(DTYPES[dtype])
    alone = [written(one, rows, [row], **OPTIONS[name])[0] for row in range(ROWS)]
    assert len({len(ids) for ids, _ in alone}) > 1
    for order in [(5, 2, 0, 3, 1, 4), (4, 0, 3)]:
        assert written(one, rows, order, **OPTIONS[name]) == [alone[row] for row in sorted(order)]


@pytest.mark.parametrize(
    ("kind", "name"),
    some(
        itertools.product(DECODERS, OPTIONS),
        *(("bart", name) for name in OPTIONS),
        *itertools.product(("mbart", "gpt2", "bert"), ("greedy", "beams")),
    ),
)
def test_texts_are_those_of_generate(kind, name):
    one, rows = model(kind, torch.float32), frames(torch.float32)
    options = {"eos_token_id": ENDS, "max_new_tokens": TOKENS, **OPTIONS[name]}
    if "decoder_input_ids" in options:
        options["decoder_input_ids"] = options["decoder_input_ids"].to(NAME)
    for row, (ids, log_probs) in enumerate(written(one, rows, range(ROWS), **OPTIONS[name])):
        if options.get("do_sample"):
            options["generators"] = [torch.Generator(NAME).manual_seed(row)]
        assert [ids] == one.generate(encoder_outputs=(rows[row],), **options).tolist()
        all_ids = torch.tensor([ids]).to(NAME)
        logits = one(encoder_outputs=(rows[row],), decoder_input_ids=all_ids[:, :-1]).logits
        expected = logits.log_softmax(-1).gather(-1, all_ids[:, 1:, None])[0, :, 0].cpu()
        torch.testing.assert_close(torch.tensor(log_probs), expected[-len(log_probs) :], atol=1e-4, rtol=1e-4)


def steps(one: SpeechEncoderDecoderModel, rows: Sequence[Tensor], order: Sequence[int], **options: Any) -> Any:
    """Return the layouts of all ops of texts of one length."""
    with Arithmetic() as mode:
        written(one, rows, order, eos_token_id=[2], min_new_tokens=TOKENS, **options)
    return Counter({op: count for op, count in mode.seen.items() if op[0] != "aten::detach"})


@pytest.mark.parametrize(
    ("kind", "name"),
    some(
        itertools.product(DECODERS, WAYS),
        *(("bart", name) for name in WAYS),
        *(("gpt2", "beams"), ("bert", "greedy")),
    ),
)
def test_no_op_has_another_layout_for_other_neighbours(kind, name):
    one, rows = model(kind, torch.bfloat16), frames(torch.bfloat16)
    steps(one, rows, [0], **OPTIONS[name])  # weights are joined
    alone, larger = steps(one, rows, [0], **OPTIONS[name]), steps(one, rows, [3], **OPTIONS[name])
    assert sum(alone.values()) > 20 * TOKENS
    for order in [(1,), (2, 4)]:
        assert steps(one, rows, order, **OPTIONS[name]) == alone
    assert steps(one, rows, (5,), **OPTIONS[name]) == larger
    assert steps(one, rows, (5, 2, 3, 0), **OPTIONS[name]) == Counter(alone) + Counter(larger)


LAUNCHES = {"greedy": 97, "beams": 167}
"""Of a token by a BART of two layers, search included; attention is several launches on this device."""


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_token_has_one_wait_and_launches_that_no_row_adds_to(name):
    one, rows = model("bart", torch.bfloat16), frames(torch.bfloat16)

    def figures(order: Sequence[int], tokens: int) -> tuple[int, int]:
        options = {"eos_token_id": [2], "max_new_tokens": tokens, "min_new_tokens": tokens, **OPTIONS[name]}
        with counted() as counts:
            written(one, rows, order, **options)
        return counts.launches, sum(counts.waits.values())

    figures([0], 2)
    for order in [(0,), (0, 1)]:
        first, more = figures(order, 3), figures(order, 6)
        assert more[1] - first[1] == 3
        assert more[0] - first[0] == 3 * LAUNCHES[name]


def test_cohorts_hold_rows_of_one_room_and_fill_their_places():
    counts = [300, 60, 700, *range(1, 20), 128, 129]
    found = [*divided(counts)]
    assert sorted(row for one in found for row in one.rows) == [*range(len(counts))]
    for one in found:
        assert {room_frames(counts[row]) for row in one.rows} == {one.room}
        assert len(one.rows) <= one.num_places == places_of(one.room)
    assert len(found) == 4 + 2
    assert next(one.num_places for one in divided(counts, texts=3)) == PLACES // 3


def test_rooms_and_places_depend_on_a_row_alone(monkeypatch):
    monkeypatch.undo()
    for count in range(1, 4000):
        room = room_frames(count)
        assert max(count, LEAST_ROOM) <= room
        assert room == LEAST_ROOM or room < 1.5 * count
        assert room_frames(room) == room
    assert [places_of(room) for room in (128, 512, 768, 1024, 1536, 500_000)] == [240, 240, 168, 128, 80, 1]
    assert [places_of(512, texts) for texts in (2, 4, 5, 300)] == [120, 60, 48, 1]


@torch.inference_mode()
def test_steps_of_cohorts_are_graphs_whoever_is_in_them():
    one, rows = model("bart", torch.bfloat16), frames(torch.bfloat16)
    one.decoder.graphed_steps = recorded = GraphedSteps(torch.device(NAME))
    try:
        for order in [(0, 1), (2,), (4, 2, 1), (1, 2, 0)]:
            found = written(one, rows, order)
            kept, one.decoder.graphed_steps = one.decoder.graphed_steps, None
            assert found == written(one, rows, order)
            one.decoder.graphed_steps = kept
        assert recorded.why_not == ""
        [memory] = recorded.memories.values()
        assert len(memory.graphs) > 3
    finally:
        one.decoder.graphed_steps = None
