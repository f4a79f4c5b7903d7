"""S2, what an expert writes: windows decoded beforehand and sorted by length, batches of so many padded seconds."""

from collections.abc import Iterator

import numpy as np
import torch
import transformers

from benchmarks.programs import common

BATCH_SECONDS = 30


def batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Yield batches of windows, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def main() -> None:
    """Label shards: CHECKPOINT SHARDS OUT DTYPE."""
    checkpoint, shards, out, dtype = common.arguments()
    transformers.logging.set_verbosity_error()
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    model = transformers.AutoModelForCTC.from_pretrained(checkpoint, dtype=dtype).eval()
    rate = processor.feature_extractor.sampling_rate
    owners: list[str] = []
    waves: list[np.ndarray] = []
    for row in common.rows(shards):
        cut = common.windows(common.waveform(row["audio"]["bytes"], rate), rate)
        waves += cut
        owners += [row["id"]] * len(cut)
    texts = [""] * len(waves)
    for batch in batches([len(wave) for wave in waves], BATCH_SECONDS * rate):
        inputs = processor([waves[i] for i in batch], sampling_rate=rate, padding=True, return_tensors="pt")
        ids = model(**inputs.to(model.dtype)).logits.argmax(-1)
        num_frames = model._get_feat_extract_output_lengths(torch.tensor([len(waves[i]) for i in batch]))
        for index, found, frames in zip(batch, ids, num_frames, strict=True):
            texts[index] = processor.decode(found[:frames])
    labels: dict[str, list[str]] = {}
    for owner, text in zip(owners, texts, strict=True):
        labels.setdefault(owner, []).append(text)
    common.write(out, {name: " ".join(filter(None, parts)) for name, parts in labels.items()})


if __name__ == "__main__":
    main()
