"""S1, what most users write: `transformers.pipeline` with batches of 8, in the order of the corpus."""

import torch
import transformers

from benchmarks.programs import common

BATCH = 8


def main() -> None:
    """Label shards: CHECKPOINT SHARDS OUT DTYPE."""
    checkpoint, shards, out, dtype = common.arguments()
    transformers.logging.set_verbosity_error()
    label = transformers.pipeline("automatic-speech-recognition", model=checkpoint, device="cpu", dtype=dtype)
    rate = label.feature_extractor.sampling_rate
    ids: list[str] = []

    def waves():
        for row in common.rows(shards):
            ids.append(row["id"])
            yield {"raw": common.waveform(row["audio"]["bytes"], rate), "sampling_rate": rate}

    with torch.inference_mode():
        found = label(waves(), batch_size=BATCH, chunk_length_s=common.WINDOW_SECONDS)
        texts = [one["text"] for one in found]
    common.write(out, dict(zip(ids, texts, strict=True)))


if __name__ == "__main__":
    main()
