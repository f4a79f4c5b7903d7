"""Small models of every family learn ten recordings by heart, and write their texts."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

import raysp.models
from raysp.models import TextTokenizer
from raysp.models.features.processors import pad
from raysp.text.error_rates import TextRules
from raysp.text.greedy_ctc import greedy
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.training_steps import Training
from raysp.training.objectives.seq2seq_task import TokenTargets, special_ids
from tests.corpora import DEMO
from tests.training.conftest import IDS, LETTERS
from tests.training.criteria import ctc_criterion, encoder_decoder, seq2seq_criterion
from tests.training.objectives.originals import extractor_of, save_decoder, still

pytestmark = pytest.mark.slow

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SMALL = {
    "vocab_size": 20,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "pad_token_id": 0,
    "mask_time_prob": 0.0,
}
SMALL_ENCODERS = {
    "wav2vec2 group": ("Wav2Vec2", {"conv_dim": (24,) * 7}),
    "wav2vec2 layer": ("Wav2Vec2", {"conv_dim": (24,) * 7, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "hubert": ("Hubert", {"conv_dim": (24,) * 7}),
    "unispeech": ("UniSpeech", {"conv_dim": (24,) * 7}),
    "sew-d": ("SEWD", {"conv_dim": (24,) * 13, "position_buckets": 16}),
    "wav2vec2-bert": ("Wav2Vec2Bert", {"conv_depthwise_kernel_size": 7}),
}
IN_SHORT = ("unispeech",)
"""Those of `make test`; `make soak` has all."""
BLANK_BIAS = 3.0


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """A recording of each digit at 16 kHz, with silence behind.

    The number of frames is even: SEW-D computes nothing for an odd one at the end.
    """
    found: dict[str, np.ndarray] = {}
    for file in sorted((Path(DEMO) / "audio").glob("*.parquet")):
        for row in pq.read_table(file, columns=["audio", "text"]).to_pylist():
            if row["text"] not in found:
                samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
                wave = soxr.resample(samples, rate, 16_000, quality="HQ")
                pairs = len(wave) // 640 + 3
                found[row["text"]] = np.pad(wave, (0, 400 + 320 * (2 * pairs - 1) - len(wave)))
    return [found[word] for word in WORDS]


def small_model(encoder: str, head: str):
    torch.manual_seed(0)
    prefix, fields = SMALL_ENCODERS[encoder]
    cls = getattr(raysp.models, prefix + head)
    return cls(still(cls.config_class(**SMALL, **fields)))


def learn(objective, batch: MicroBatch) -> None:
    """Train until the mean loss is below 0.05, for at most 800 steps."""
    objective.model.train()
    groups = group_parameters(
        objective.model, raysp.Schedule(steps=1, learning_rate=1e-3, head_rate=1.0, weight_decay=0.0)
    )
    training = Training(objective, new_optimizer(groups), seed=0)
    losses = (training.step(0, step, [batch], learning_rate=1e-3).loss for step in range(800))
    assert any(loss < 0.05 for loss in losses)


@pytest.mark.parametrize(
    "encoder", [pytest.param(one, marks=[pytest.mark.soak] * (one not in IN_SHORT)) for one in SMALL_ENCODERS]
)
def test_ten_utterances_are_learnt_by_ctc(encoder, waves):
    model, extractor = small_model(encoder, "ForCTC"), extractor_of(encoder)
    with torch.no_grad():
        model.lm_head.bias[0] = BLANK_BIAS
    targets = [[IDS[letter] for letter in word.upper()] for word in WORDS]
    learn(ctc_criterion(model, extractor), MicroBatch(0, range(10), waves, targets))
    with torch.inference_mode():
        logits = model.eval()(**features_of(extractor, waves)).logits
    num_frames = model.num_frames(torch.tensor([len(wave) for wave in waves]))
    found = greedy(logits, num_frames, blank=0).ids()
    assert ["".join(LETTERS[number - 4] for number in ids).lower() for ids in found] == [*WORDS]


def features_of(extractor, waves):
    samples, num_samples = pad(waves)
    return extractor.extract(samples, num_samples)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [*(("wav2vec2 layer", kind) for kind in ("bert", "gpt2", "bart", "mbart")), ("wav2vec2-bert", "bart")],
)
def test_ten_utterances_are_learnt_by_encoders_with_decoders(encoder, decoder, waves, tmp_path):
    save_decoder(decoder, tmp_path / "decoder")
    small_model(encoder, "Model").save_pretrained(tmp_path / "encoder")
    tokenizer, extractor = TextTokenizer.from_pretrained(tmp_path / "decoder"), extractor_of(encoder)
    model = encoder_decoder(tmp_path / "encoder", tokenizer, decoder=tmp_path / "decoder")
    still(model.config)
    tokens = TokenTargets(TextRules(), tokenizer, special_ids(tokenizer, model.config), 256)
    batch = MicroBatch(0, range(10), waves, [tokens.ids(word) for word in WORDS])
    learn(seq2seq_criterion(model, extractor, smoothing=0.0), batch)
    model.save_pretrained(tmp_path / "trained")
    again = raysp.models.SpeechEncoderDecoderModel.from_pretrained(tmp_path / "trained")
    ids = again.generate(**features_of(extractor, waves))
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == [*WORDS]
