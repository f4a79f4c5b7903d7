"""CTC beside a decoder: the sum of both losses, and a head that the checkpoint does not have."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Seq2Seq, SpecError, finetune
from raysp.models import TextTokenizer
from raysp.storage.store import LocalStore
from raysp.training.finetuning import plan_recipe
from raysp.training.loop.optimizing import group_parameters
from raysp.training.objectives.starting_model import CTC_HEAD, add_ctc_head
from raysp.training.sink import step_metrics
from raysp.training.tasks.seq2seq_task import Seq2SeqObjective, load_encoder_decoder
from tests.models.oracles import make_oracle
from tests.recipes import a_recipe
from tests.soaked import some
from tests.training.objectives.originals import extractor_of, random_batch, save_decoder
from tests.training.runs.test_finetuning import steps_until
from tests.training.runs.test_objectives import assert_same_logits


@pytest.fixture(scope="module", params=some(["bert", "gpt2", "bart"], "gpt2"))
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    make_oracle(feat_extract_norm="layer").save_pretrained(folder / "encoder")
    decoder = save_decoder(request.param, folder / "decoder")
    found = load_encoder_decoder(folder / "encoder", TextTokenizer.from_pretrained(decoder), decoder=decoder)
    add_ctc_head(found, seed=3, blank_bias=3.0)
    return found.eval()  # without dropout, so that passes repeat


def objective_of(model, weight: float, prompt: int = 0) -> Seq2SeqObjective:
    return Seq2SeqObjective(model, extractor_of("unispeech"), ctc_weight=weight, num_prompt_tokens=prompt)


@pytest.mark.parametrize("prompt", [0, 1])
def test_the_loss_is_the_weighted_sum_of_attention_and_ctc(model, prompt):
    end, blank = model.config.eos_token_id, model.config.decoder.vocab_size
    targets = [[7, 8, 8, 9, end], [11, 12, end], [*[20, 21] * 15, end]]  # the last has more tokens than frames
    batch = random_batch(targets, lengths=(6640, 5680, 800))
    alone = objective_of(model, 0.0)(batch)
    found = objective_of(model, 0.3, prompt)(batch)
    frames, num_frames = objective_of(model, 0.3)._run(batch)[2:]
    logits = model.get_submodule(CTC_HEAD)(frames)
    assert logits.shape[-1] == blank + 1
    expected = []
    for row, target in enumerate(targets):
        log_probs = logits[row, : num_frames[row]].log_softmax(-1)
        spoken = torch.tensor(target[prompt:-1])
        loss = F.ctc_loss(log_probs, spoken, num_frames[row], torch.tensor(len(spoken)), blank=blank, reduction="sum")
        expected.append(torch.where(loss.isinf(), torch.zeros(()), loss))
    ctc = torch.stack(expected)
    assert ctc[:2].min() > 0
    assert ctc[2] == 0
    torch.testing.assert_close(found.rows_B, (0.7 * alone.rows_B + 0.3 * ctc).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.total, found.rows_B.sum())
    assert found.count == alone.count == sum(map(len, targets))
    torch.testing.assert_close(found.terms["attention"], alone.total.detach())
    torch.testing.assert_close(found.terms["ctc"], ctc.sum().detach(), rtol=1e-4, atol=1e-4)
    assert (objective_of(model, 0.0).terms, alone.terms) == ((), {})


def test_evaluations_have_the_loss_of_the_decoder_alone(model):
    batch = random_batch([[7, 8, model.config.eos_token_id]])
    (_, joint), (_, alone) = (objective_of(model, weight).predict(batch) for weight in (0.5, 0.0))
    assert torch.equal(joint, alone)


def test_the_head_is_trained_at_the_rate_of_new_weights(model):
    rates = {name: group.rate for group in group_parameters(model, head_rate=10.0) for name in group.names}
    assert rates[f"{CTC_HEAD}.weight"] == rates[f"{CTC_HEAD}.bias"] == 10.0


def joint(words, headless, sink, weight: float = 0.3, **fields) -> raysp.Finetune:
    decoder = fields.pop("decoder")
    masks = {"hidden_dropout": 0.1, "layerdrop": 0.2}
    objective = Seq2Seq(str(headless), decoder=decoder, masks=masks, ctc_weight=weight, **fields)
    return a_recipe(words, Path(), sink, objective=objective)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> str:
    return str(save_decoder("gpt2", tmp_path_factory.mktemp("decoder") / "gpt2"))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"lora": raysp.LoRA(4)}, {"freeze": "encoder"}], ids=["all", "lora", "frozen"])
def test_a_stopped_training_goes_on_bit_for_bit_and_its_checkpoint_has_no_head(
    words, headless, decoder, tmp_path, fields
):
    made = [joint(words, headless, tmp_path / name, decoder=decoder, **fields) for name in ("once", "out")]
    finetune(made[0])
    assert finetune(made[1], should_stop=steps_until(2)).steps == 2
    with pytest.raises(ChangedError, match=r"objective.ctc_weight"):
        finetune(joint(words, headless, tmp_path / "out", 0.2, decoder=decoder, **fields))
    assert finetune(made[1]).is_done
    once, found = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "out"))
    assert not any(CTC_HEAD in name for name in found)
    assert all(torch.equal(once[name], value) for name, value in found.items())
    assert_same_logits(tmp_path / "out")
    for step in step_metrics.load(LocalStore(tmp_path / "out")):
        assert step.loss == pytest.approx(0.7 * step.terms["attention"] + 0.3 * step.terms["ctc"], rel=1e-4)
    steps = [*(tmp_path / "out" / ".raysp" / "steps").glob("*.*/model.safetensors")]
    assert all(f"{CTC_HEAD}.weight" in load_file(file) for file in steps)


@pytest.mark.slow
def test_a_recipe_without_it_has_the_parts_of_earlier_versions_and_plans_count_the_head(
    words, headless, decoder, tmp_path
):
    _, plain = plan_recipe(joint(words, headless, tmp_path / "out", 0.0, decoder=decoder))
    _, weighted = plan_recipe(joint(words, headless, tmp_path / "out", 0.3, decoder=decoder))
    assert "objective.ctc_weight" not in plain.parts
    assert weighted.parts == {**plain.parts, "objective.ctc_weight": 0.3}
    memory = [
        raysp.estimate(joint(words, headless, tmp_path / "out", weight, decoder=decoder)).memory
        for weight in (0.0, 0.3)
    ]
    width, size = 32, 268
    assert memory[1].weights - memory[0].weights == 4 * (width + 1) * (size + 1)
    assert memory[1].activations > memory[0].activations


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_a_weight_that_leaves_the_decoder_nothing_is_refused(weight):
    with pytest.raises(SpecError, match=r"ctc_weight"):
        Seq2Seq("c", ctc_weight=weight)
    assert replace(Seq2Seq("c"), ctc_weight=0.5).ctc_weight == 0.5
