"""Training of a head of classes, with the calls of the example run_audio_classification.py of transformers, in their
order."""

from pathlib import Path

import datasets
import numpy as np
import transformers

from tests.models.promises.programs.data import decoded, digits, reported


def first_seconds(wave, max_length: float, sample_rate: int):
    """Return the begin of a waveform."""
    return wave[: round(sample_rate * max_length)]


def main(models, start: Path, out: Path, **given):
    """Train `start` with the classes of `models`, raysp.models or transformers; return the trainer and metrics."""
    arguments = transformers.TrainingArguments(
        str(out), use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="accuracy", remove_unused_columns=False,
        per_device_train_batch_size=1, per_device_eval_batch_size=1, seed=1,
        **{"num_train_epochs": 2, "gradient_accumulation_steps": 4, "learning_rate": 1e-3, **given},
    )  # fmt: skip
    transformers.set_seed(arguments.seed)
    rows = digits()
    names = sorted({text for split in rows.values() for text in split["text"]})
    rows = rows.cast_column("text", datasets.ClassLabel(names=names)).rename_column("text", "label")
    access = {"cache_dir": None, "revision": "main", "token": None, "trust_remote_code": False}
    extractor = models.AutoFeatureExtractor.from_pretrained(start, return_attention_mask=True, **access)
    rows = rows.cast_column("audio", datasets.Audio(sampling_rate=extractor.sampling_rate, decode=False))
    name = extractor.model_input_names[0]

    def train_transforms(batch):
        waves = [decoded(one)["array"] for one in batch["audio"]]
        waves = [first_seconds(wave, 0.5, extractor.sampling_rate) for wave in waves]
        inputs = extractor(waves, sampling_rate=extractor.sampling_rate)
        return {name: inputs.get(name), "labels": list(batch["label"])}

    def eval_transforms(batch):
        inputs = extractor([decoded(one)["array"] for one in batch["audio"]], sampling_rate=extractor.sampling_rate)
        return {name: inputs.get(name), "labels": list(batch["label"])}

    labels = rows["train"].features["label"].names
    label2id = {label: str(index) for index, label in enumerate(labels)}
    id2label = {str(index): label for index, label in enumerate(labels)}

    def compute_metrics(predicted):
        found = np.argmax(predicted.predictions, axis=1)
        return {"accuracy": float((found == predicted.label_ids).mean())}

    config = models.AutoConfig.from_pretrained(
        start,
        num_labels=len(labels),
        label2id=label2id,
        id2label=id2label,
        finetuning_task="audio-classification",
        **access,
    )
    model = models.AutoModelForAudioClassification.from_pretrained(
        start, from_tf=False, config=config, ignore_mismatched_sizes=False, **access
    )
    model.freeze_feature_encoder()
    rows["train"] = rows["train"].shuffle(seed=arguments.seed).select(range(6))
    rows["train"].set_transform(train_transforms, output_all_columns=False)
    rows["eval"] = rows["eval"].shuffle(seed=arguments.seed).select(range(4))
    rows["eval"].set_transform(eval_transforms, output_all_columns=False)
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        compute_metrics=compute_metrics,
        processing_class=extractor,
    )
    trained = trainer.train(resume_from_checkpoint=None)
    trainer.save_model()
    metrics = trainer.evaluate()
    reported(trainer, trained, metrics)
    trainer.create_model_card(finetuned_from=str(start), tasks="audio-classification", tags=["audio-classification"])
    return trainer, metrics
