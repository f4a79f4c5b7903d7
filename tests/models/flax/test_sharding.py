import os
import subprocess
import sys

import pytest

from tests.models.flax.sisters import speech_encoder_decoder

CODE = """
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from raysp.models import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_pretrained(sys.argv[1])
waves, ids = np.random.default_rng(0).standard_normal((4, 900)).astype(np.float32), np.full((4, 5), 7)
alone = model(waves, decoder_input_ids=ids).logits
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))

def sharding(leaf):
    axes = ["model" if size % 2 == 0 and axis == leaf.ndim - 1 else None for axis, size in enumerate(leaf.shape)]
    return NamedSharding(mesh, PartitionSpec(*axes))

model.params = jax.tree.map(lambda leaf: jax.device_put(leaf, sharding(leaf)), model.params)
by_rows = NamedSharding(mesh, PartitionSpec("data"))
shared = model(jax.device_put(waves, by_rows), decoder_input_ids=jax.device_put(ids, by_rows)).logits
print(len(shared.sharding.device_set), np.abs(np.asarray(shared) - np.asarray(alone)).max() < 1e-4)
"""


@pytest.mark.soak
def test_sharded_parameters_and_rows_give_the_same_logits(jax, tmp_path):
    speech_encoder_decoder("wav2vec2", "bart").save_pretrained(tmp_path)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    command, environment = [sys.executable, "-c", CODE, str(tmp_path)], {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.stdout.strip() == "4 True", done.stderr
