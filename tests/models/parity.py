"""What every model on speech is held to: transformers' numbers, and a row alone equal to the row in a batch."""

import copy

import torch
import transformers

LENGTHS = (3001, 1700, 2502, 800)


def waves_and_mask(lengths=LENGTHS, seed=1):
    return inputs_and_mask(lengths, None, seed)


def inputs_and_mask(lengths, width, seed=1):
    """Draw waveforms, or frames of features of a width, that are zero behind the end of each row."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    if width is None:
        return torch.randn(mask.shape, generator=generator) * mask, mask.long()
    return torch.randn(*mask.shape, width, generator=generator) * mask[:, :, None], mask.long()


def assert_close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@torch.no_grad()  # some originals would keep tensors of inference mode
def check_outputs(oracle, model, lengths=LENGTHS, width=None):
    """Hold every output to theirs: without a mask, with one, of one row; hidden states and attentions included.

    Rows with a mask are of one length: padding has a part in outputs of theirs (see `check_rows_alone_are_theirs`).
    """
    waves, _ = inputs_and_mask(lengths, width)
    filled = unpadded(oracle, lengths, width)
    asked = {"output_hidden_states": True, "output_attentions": True}
    oracle.set_attn_implementation("eager")
    for inputs in ((waves[:2],), filled, (waves[1:2, : lengths[1]],)):
        ours, theirs = model(*inputs, **asked), oracle(*inputs, **asked)
        assert [*ours] == list(theirs.keys())
        for name in ours:
            assert ours[name] != (), name
            assert_close(ours[name], theirs[name])
        assert_close(model(*inputs)[0], theirs[0])


def unpadded(oracle, lengths, width):
    """Draw rows of one length, with a mask where theirs counts the frames that it reads."""
    inputs, mask = inputs_and_mask((max(lengths),) * len(lengths), width)
    config = oracle.config  # speakers of all layers: counted behind the adapter, and read before it
    is_miscounted = getattr(config, "add_adapter", False) and getattr(config, "use_weighted_layer_sum", False)
    return (inputs,) if is_miscounted else (inputs, mask)


def check_names(oracle, model, folder):
    """Weights have their names, and what ours saves loads in transformers with nothing missing or left over."""
    assert model.state_dict().keys() == oracle.state_dict().keys()
    model.save_pretrained(folder)
    again, info = type(oracle).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    weights = again.state_dict()
    for name, value in oracle.state_dict().items():
        assert torch.equal(weights[name], value), name
    assert isinstance(again, transformers.PreTrainedModel)


def check_gradients(oracle, model, labels, lengths=LENGTHS, width=None):
    """Loss and the gradients of every weight equal theirs, in float64: float32 rounds across the kinks of a ReLU."""
    oracle, model = copy.deepcopy(oracle).double(), copy.deepcopy(model).double()
    waves, *mask = unpadded(oracle, lengths, width)
    waves = waves.double()
    if not type(model).__name__.startswith("Parakeet"):  # theirs needs a mask
        assert_close(model(waves, labels=labels).loss, oracle(waves, labels=labels).loss)
    theirs, ours = oracle(waves, *mask, labels=labels), model(waves, *mask, labels=labels)
    assert_close(ours.loss, theirs.loss)
    theirs.loss.backward()
    ours.loss.backward()
    assert_equal_gradients(model, oracle)


def assert_equal_gradients(model, oracle, tolerance=1e-4):
    """The same weights have gradients, and equal ones."""
    found, expected = (
        {name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None}
        for one in (model, oracle)
    )
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        atol = tolerance * max(1.0, float(expected[name].abs().max()))  # losses are in float32
        torch.testing.assert_close(
            gradient, expected[name], atol=atol, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@torch.no_grad()  # some originals would keep tensors of inference mode
def check_rows_alone(model, lengths=LENGTHS, tolerance=1e-4, width=None, **options):
    """In a padded batch every row gives the same result as alone, with any values after its end."""
    waves, mask = inputs_and_mask(lengths, width)
    waves = waves + (1 - mask if width is None else 1 - mask[:, :, None]) * 7.0
    together = model(waves, mask, **options)
    for row, length in enumerate(lengths):
        alone = model(waves[row : row + 1, :length], **options)
        for name in [name for name in alone if name != "loss"]:
            mine, others = together[name], alone[name]
            if not isinstance(mine, tuple):
                mine, others = (mine,), (others,)
            for batched, single in zip(mine, others, strict=True):
                found = batched[row] if single.dim() == 2 else batched[row, : single.shape[1]]
                if name == "attentions":
                    found = batched[row, :, : single.shape[2], : single.shape[3]]
                assert found.isfinite().all()
                assert_close(found, single[0], tolerance)
                if name == "logits":
                    assert torch.equal(found.argmax(-1), single[0].argmax(-1))


@torch.no_grad()  # some originals would keep tensors of inference mode
def check_rows_alone_are_theirs(oracle, model, lengths=LENGTHS, width=None):
    """The exact batch equals what transformers gives for each row by itself."""
    waves, mask = inputs_and_mask(lengths, width)
    found = model(waves, mask)[0]
    for row, length in enumerate(lengths):
        alone = oracle(waves[row : row + 1, :length])[0][0]
        if alone.dim() == 1:
            assert_close(found[row], alone)
            continue
        assert_close(found[row, : len(alone)], alone)
        assert model._get_feat_extract_output_lengths(length) == len(alone)
        if type(model).__name__.endswith("ForCTC"):
            assert torch.equal(found[row, : len(alone)].argmax(-1), alone.argmax(-1))
