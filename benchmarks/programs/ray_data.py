"""S3, Ray Data as Ray's own benchmark of speech recognition uses it: map, map_batches with actors, write_parquet.

There the features of all recordings have one width, so that they are made in a step of their own. Here the width is
that of a batch's longest window, so the actor that holds the model makes them.
"""

import glob
from typing import Any

import ray
import torch
import transformers

from benchmarks.programs import common

BATCH = 16
"""Ray's benchmark has 64 on a GPU; so many windows of 30 s do not fit into 24 GB."""


def decode(row: dict[str, Any], rate: int) -> list[dict[str, Any]]:
    """Decode a recording and cut it into windows, a row each."""
    cut = common.windows(common.waveform(row["audio"]["bytes"], rate), rate)
    return [{"id": row["id"], "number": number, "wave": wave} for number, wave in enumerate(cut)]


class Model:
    """Holds the model."""

    def __init__(self, checkpoint: str, threads: int, dtype: str) -> None:
        torch.set_num_threads(threads)
        self.processor = transformers.AutoProcessor.from_pretrained(checkpoint)
        self.rate = self.processor.feature_extractor.sampling_rate
        self.model = transformers.AutoModelForCTC.from_pretrained(checkpoint, dtype=dtype).eval()

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the texts of a batch."""
        waves = list(batch["wave"])
        inputs = self.processor(waves, sampling_rate=self.rate, padding=True, return_tensors="pt")
        ids = self.model(**inputs.to(self.model.dtype)).logits.argmax(-1)
        num_frames = self.model._get_feat_extract_output_lengths(torch.tensor([len(wave) for wave in waves]))
        texts = [self.processor.decode(one[:frames]) for one, frames in zip(ids, num_frames, strict=True)]
        return {"id": batch["id"], "number": batch["number"], "text": texts}


def main() -> None:
    """Label shards: CHECKPOINT SHARDS OUT DTYPE."""
    checkpoint, shards, out, dtype = common.arguments()
    ray.init(address="local", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cpus = int(ray.cluster_resources()["CPU"])
    rate = transformers.AutoFeatureExtractor.from_pretrained(checkpoint).sampling_rate
    (
        ray.data.read_parquet(sorted(glob.glob(shards)), columns=["id", "audio"])
        .flat_map(decode, fn_kwargs={"rate": rate})
        .map_batches(
            Model,
            batch_size=BATCH,
            concurrency=1,
            num_cpus=max(1, cpus - 1),
            fn_constructor_kwargs={"checkpoint": checkpoint, "threads": cpus, "dtype": dtype},
        )
        .write_parquet(str(out))
    )


if __name__ == "__main__":
    main()
