"""A fixed number of rows a step: texts are those of `generate`, and in half precision no bit depends on other rows."""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raysp.models import (
    BartConfig,
    BertConfig,
    GPT2Config,
    MBartConfig,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)
from tests.soaked import some

pytestmark = pytest.mark.drivers  # every decoder with every option takes long

PADDING = 0
"""Token of a place without a text."""
ENDS = [2, *range(20, 60)]
"""Tokens that end a text, so many that texts have different lengths."""
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "length": {"min_new_tokens": 3},
    "repetition": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    "forced": {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "suppress_tokens": [5, 6]},
    "prompt": {"decoder_input_ids": torch.tensor([[5, 6, 7]])},
    "beams": {"num_beams": 3},
    "beams with a prompt": {"num_beams": 2, "decoder_input_ids": torch.tensor([[2, 6]]), "early_stopping": True},
    "sampling": {"do_sample": True, "top_k": 20},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}
DECODERS = {
    "bart": (BartConfig, "d_model decoder_layers decoder_attention_heads decoder_ffn_dim init_std"),
    "mbart": (MBartConfig, "d_model decoder_layers decoder_attention_heads decoder_ffn_dim init_std"),
    "gpt2": (GPT2Config, "n_embd n_layer n_head n_inner initializer_range"),
    "bert": (BertConfig, "hidden_size num_hidden_layers num_attention_heads intermediate_size initializer_range"),
}


@cache
def model(kind: str, width: int = 36, heads: int = 3, dtype: torch.dtype = torch.bfloat16) -> SpeechEncoderDecoderModel:
    config, names = DECODERS[kind]
    sizes = dict(zip(names.split(), (width, 2, heads, 2 * width + 2, 0.3), strict=True))
    decoder = config(vocab_size=203, **sizes, is_decoder=True, add_cross_attention=True, max_position_embeddings=64)
    encoder = Wav2Vec2Config(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=heads, num_conv_pos_embedding_groups=1
    )
    start = {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    torch.manual_seed(0)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **start)
    return SpeechEncoderDecoderModel(config).init_weights().to(dtype).eval()


def frames(count: int, width: int = 36, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 70, (count,), generator=generator).tolist()
    return [torch.randn(1, length, width, generator=generator).to(dtype) for length in lengths]


def written(one: SpeechEncoderDecoderModel, rows: Sequence[Tensor], order: Sequence[int], **options: Any) -> list[Any]:
    """Return ids and log-probabilities by the numbers of rows."""
    if options.get("do_sample"):
        options["generators"] = [torch.Generator().manual_seed(row) for row in order]
    given = {"rows_a_step": 8, "eos_token_id": ENDS, "max_new_tokens": 12, **options}
    found = one.generate_rows([rows[row] for row in order], **given)
    return [value for _, value in sorted(zip(order, map(as_values, found), strict=True))]


def as_values(text: Any) -> tuple[list[list[int]], list[list[float]] | None]:
    return text.ids_1T.tolist(), None if text.log_probs_1N is None else text.log_probs_1N.tolist()


OF_EACH = [*itertools.product(["bart"], OPTIONS), *itertools.product(DECODERS, ["greedy", "prompt", "beams"])]
"""All options with one decoder, and with each decoder those that it takes part in."""
OF_SEVERAL_LENGTHS = (0, 1, 4, 5, 7, 8, 10, 12, 17, 18)
"""Rows whose texts have more than two lengths in every case; more than a step has."""
WIDTHS = itertools.product(DECODERS, ["greedy", "prompt", "beams", "sampling"], [36, 512])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "width"),
    some(WIDTHS, *((*one, 36) for one in OF_EACH), ("bart", "greedy", 512), ("bert", "beams", 512)),
)
def test_no_other_row_reaches_a_bit_of_a_text(name, kind, width):
    one, drawn = model(kind, width, 4 if width > 36 else 3), frames(19, width)
    rows = [drawn[row] for row in OF_SEVERAL_LENGTHS]
    alone = [written(one, rows, [row], **OPTIONS[name])[0] for row in range(len(rows))]
    assert len({len(ids[0]) for ids, _ in alone}) > 2
    for seed in range(2):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        assert written(one, rows, order, **OPTIONS[name]) == alone
        few = order[: 5 + seed]
        assert written(one, rows, few, **OPTIONS[name]) == [alone[row] for row in sorted(few)]


@pytest.mark.parametrize(("kind", "name"), some(itertools.product(DECODERS, OPTIONS), *OF_EACH))
def test_texts_are_those_of_generate(name, kind):
    one, rows = model(kind, dtype=torch.float32), frames(11, dtype=torch.float32)
    found, by_eight = (written(one, rows, range(11), rows_a_step=count, **OPTIONS[name]) for count in (1, 8))
    assert [ids for ids, _ in by_eight] == [ids for ids, _ in found]
    for row, (ids, _) in enumerate(found):
        options = {"eos_token_id": ENDS, "max_new_tokens": 12, **OPTIONS[name]}
        if options.get("do_sample"):
            options["generators"] = [torch.Generator().manual_seed(row)]
        assert ids == one.generate(encoder_outputs=(rows[row],), **options).tolist()


@pytest.mark.parametrize("name", ["greedy", "repetition", "forced", "prompt", "sampling"])
def test_log_probabilities_are_those_of_a_pass_over_the_text(name):
    one, rows = model("bart", dtype=torch.float32), frames(9, dtype=torch.float32)
    for row, (ids, log_probs) in zip(rows, written(one, rows, range(9), **OPTIONS[name]), strict=True):
        all_ids = torch.tensor(ids)
        logits = one(encoder_outputs=(row,), decoder_input_ids=all_ids[:, :-1]).logits
        expected = logits.log_softmax(-1).gather(-1, all_ids[:, 1:, None])[:, :, 0]
        found = torch.tensor(log_probs)
        torch.testing.assert_close(found, expected[:, -found.shape[1] :], atol=1e-4, rtol=1e-4)


class Products(TorchDispatchMode):
    """Shapes of the operands of all products with weights and of norms."""

    def __init__(self) -> None:
        super().__init__()
        self.found = set[Any]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if any(part in name for part in ("addmm", "linear", "aten.mm", "layer_norm")):
            shapes = tuple(tuple(one.shape) for one in args if isinstance(one, Tensor))
            self.found.add((name, shapes))
        return result


@pytest.mark.parametrize("beams", [1, 2])
def test_products_of_each_step_have_one_shape(beams, monkeypatch):
    one, rows = model("bart"), frames(19)
    shapes = []
    for count in (1, 5, 19):
        with torch.inference_mode(), Products() as seen:
            steps = []
            decode = one.decoder.decode

            def decoding(run, *args, decode=decode, steps=steps, **kwargs):
                steps.append(tuple(args[0].shape))
                return decode(run, *args, **kwargs)

            monkeypatch.setattr(one.decoder, "decode", decoding)
            written(one, rows, range(count), num_beams=beams)
            monkeypatch.setattr(one.decoder, "decode", decode)
        assert set(steps) == {(8 * beams, 1)}
        of_steps = {found for found in seen.found if any(shape[:1] == (8 * beams,) for shape in found[1])}
        assert of_steps
        shapes.append(of_steps)
    assert shapes[0] == shapes[1] == shapes[2]


def test_a_row_that_ends_makes_room_for_the_next(monkeypatch):
    one, rows = model("bart"), frames(40)
    lengths = [len(ids[0]) - 1 for ids, _ in written(one, rows, range(40))]
    steps = []
    decode = one.decoder.decode
    monkeypatch.setattr(
        one.decoder, "decode", lambda run, ids, **more: (steps.append(ids.tolist()), decode(run, ids, **more))[1]
    )
    written(one, rows, range(40))
    most = -(-sum(lengths) // 8) + max(lengths)
    assert max(-(-sum(lengths) // 8), max(lengths)) <= len(steps) <= most < sum(lengths)
    assert steps[-1].count([PADDING]) > 0  # no row is left for some of the places


def test_a_text_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="found 65 tokens, expected at most max_position_embeddings 64"):
        written(model("bart"), frames(3), range(3), max_new_tokens=80, eos_token_id=202, suppress_tokens=[202])


def test_no_rows_have_no_texts():
    assert model("bart").generate_rows([], rows_a_step=8) == []
