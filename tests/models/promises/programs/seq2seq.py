"""Fine-tuning of an encoder with a text decoder, with the calls of the example run_speech_recognition_seq2seq.py of
transformers, in their order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from tests.models.promises.programs.data import decoded, digits, reported, word_error_rate


@dataclass
class Collator:
    """Pads rows and labels; a first token that the model puts before the labels itself is cut."""

    processor: Any
    decoder_start_token_id: int
    forward_attention_mask: bool = False

    def __call__(self, rows):
        name = self.processor.model_input_names[0]
        batch = self.processor.feature_extractor.pad([{name: row[name]} for row in rows], return_tensors="pt")
        labels = self.processor.tokenizer.pad([{"input_ids": row["labels"]} for row in rows], return_tensors="pt")
        if self.forward_attention_mask:
            batch["attention_mask"] = (batch[name] != 0).long()
        found = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        if (found[:, 0] == self.decoder_start_token_id).all().cpu().item():
            found = found[:, 1:]
        batch["labels"] = found
        return batch


def main(models, start: Path, out: Path, **given):
    """Train `start` with the classes of `models`, raysp.models or transformers; return the trainer and metrics."""
    arguments = transformers.Seq2SeqTrainingArguments(
        str(out), use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="steps", eval_steps=2, save_steps=2,
        per_device_train_batch_size=4, seed=1, predict_with_generate=True, generation_max_length=8,
        **{"max_steps": 4, "learning_rate": 1e-3, **given},
    )  # fmt: skip
    last = transformers.trainer_utils.get_last_checkpoint(str(out)) if out.is_dir() else None
    transformers.set_seed(arguments.seed)
    rows = digits()
    access = {"cache_dir": None, "revision": "main", "token": None, "trust_remote_code": False}
    config = models.AutoConfig.from_pretrained(start, **access)
    extractor = models.AutoFeatureExtractor.from_pretrained(start, **access)
    tokenizer = models.AutoTokenizer.from_pretrained(start, use_fast=True, **access)
    model = models.AutoModelForSpeechSeq2Seq.from_pretrained(start, config=config, **access)
    assert model.config.decoder_start_token_id is not None
    model.freeze_feature_encoder()
    name = extractor.model_input_names[0]

    def prepared(row):
        sample = decoded(row["audio"])
        inputs = extractor(sample["array"], sampling_rate=sample["sampling_rate"], return_attention_mask=False)
        row[name] = inputs.get(name)[0]
        row["input_length"] = len(sample["array"])
        row["labels"] = tokenizer(row["text"].lower()).input_ids
        return row

    with arguments.main_process_first(desc="preprocessing"):
        rows = rows.map(prepared, remove_columns=rows["train"].column_names)
    most = 20.0 * extractor.sampling_rate
    rows = rows.filter(lambda length: 0 < length < most, input_columns=["input_length"])

    def compute_metrics(predicted):
        predicted.label_ids[predicted.label_ids == -100] = tokenizer.pad_token_id
        found = tokenizer.batch_decode(predicted.predictions, skip_special_tokens=True)
        expected = tokenizer.batch_decode(predicted.label_ids, skip_special_tokens=True)
        return {"wer": word_error_rate(found, expected)}

    with arguments.main_process_first():
        for one in (extractor, tokenizer, config):
            one.save_pretrained(arguments.output_dir)
    processor = models.AutoProcessor.from_pretrained(arguments.output_dir)
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        processing_class=extractor,
        data_collator=Collator(processor, model.config.decoder_start_token_id),
        compute_metrics=compute_metrics,
    )
    trained = trainer.train(resume_from_checkpoint=last)
    trainer.save_model()
    metrics = trainer.evaluate(metric_key_prefix="eval", max_length=arguments.generation_max_length, num_beams=2)
    reported(trainer, trained, metrics)
    trainer.create_model_card(finetuned_from=str(start), tasks="automatic-speech-recognition", dataset_tags="digits")
    return trainer, metrics
