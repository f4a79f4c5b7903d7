"""Fine-tuning of a CTC model, with the calls of the example run_speech_recognition_ctc.py of transformers, in their
order; with a language, those of run_speech_recognition_ctc_adapter.py."""

import json
import re
from pathlib import Path

import numpy as np
import transformers

from tests.models.promises.programs.data import decoded, digits, reported, word_error_rate


def vocabulary_of(rows, word_delimiter: str, *special: str) -> dict[str, int]:
    """Return the characters of all texts, and special tokens behind them."""

    def characters_of(batch):
        return {"vocab": [sorted({*" ".join(batch["target_text"])})]}

    found = rows.map(
        characters_of, batched=True, batch_size=-1, keep_in_memory=True, remove_columns=rows["train"].column_names
    )
    characters = sorted({one for split in found.values() for one in split["vocab"][0]})
    vocabulary = {character: index for index, character in enumerate(characters)}
    vocabulary[word_delimiter] = vocabulary.pop(" ")
    for token in special:
        vocabulary[token] = len(vocabulary)
    return vocabulary


class Collator:
    """Pads rows and labels; padding of labels is -100."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, rows):
        inputs = [{"input_values": row["input_values"]} for row in rows]
        labels = [{"input_ids": row["labels"]} for row in rows]
        batch = self.processor.pad(inputs, padding=True, pad_to_multiple_of=None, return_tensors="pt")
        padded = self.processor.pad(labels=labels, padding=True, pad_to_multiple_of=None, return_tensors="pt")
        batch["labels"] = padded["input_ids"].masked_fill(padded.attention_mask.ne(1), -100)
        if "attention_mask" in batch:
            batch["attention_mask"] = batch["attention_mask"].to(int)
        return batch


def main(models, start: Path, out: Path, *, language: str | None = None, vocabulary_from: Path | None = None, **given):
    """Train `start` with the classes of `models`, raysp.models or transformers; return the trainer and metrics."""
    arguments = transformers.TrainingArguments(
        str(out), use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="steps", eval_steps=2, save_steps=2,
        per_device_train_batch_size=4, seed=1, **{"max_steps": 4, "learning_rate": 1e-3, **given},
    )  # fmt: skip
    last = transformers.trainer_utils.get_last_checkpoint(str(out)) if out.is_dir() else None
    transformers.set_seed(arguments.seed)
    rows = digits()

    def without_special_characters(row):
        row["target_text"] = re.sub("[,?.!]", "", row["text"]).lower() + " "
        return row

    with arguments.main_process_first(desc="special characters"):
        rows = rows.map(without_special_characters, remove_columns=["text"])
    config = models.AutoConfig.from_pretrained(start, cache_dir=None, token=None, trust_remote_code=False)
    vocabulary = {}
    if vocabulary_from is not None:
        others = models.AutoTokenizer.from_pretrained(vocabulary_from, token=None, trust_remote_code=False)
        assert others.target_lang is not None
        vocabulary = others.vocab.copy()
    if not (out / "vocab.json").is_file():
        out.mkdir(parents=True, exist_ok=True)
        found = vocabulary_of(rows, "|", "[UNK]", "[PAD]")
        vocabulary = found if language is None else {**vocabulary, language: found}
        (out / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = models.AutoTokenizer.from_pretrained(
        out,
        token=None,
        trust_remote_code=False,
        config=config if getattr(config, "tokenizer_class", None) is not None else None,
        tokenizer_type=config.model_type if getattr(config, "tokenizer_class", None) is None else None,
        unk_token="[UNK]",
        pad_token="[PAD]",
        word_delimiter_token="|",
        **({} if language is None else {"target_lang": language}),
    )
    extractor = models.AutoFeatureExtractor.from_pretrained(start, cache_dir=None, token=None, trust_remote_code=False)
    config.update(
        {
            "feat_proj_dropout": 0.0,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
            "final_dropout": 0.0,
            "mask_time_prob": 0.0,
            "mask_time_length": 10,
            "mask_feature_prob": 0.0,
            "mask_feature_length": 10,
            "gradient_checkpointing": arguments.gradient_checkpointing,
            "layerdrop": 0.0,
            "ctc_loss_reduction": "mean",
            "ctc_zero_infinity": True,
            "pad_token_id": tokenizer.pad_token_id,
            "vocab_size": len(tokenizer),
            "activation_dropout": 0.0,
            "add_adapter": False,
            **({} if language is None else {"adapter_attn_dim": 8}),
        }
    )
    model = models.AutoModelForCTC.from_pretrained(
        start, cache_dir=None, config=config, token=None, trust_remote_code=False, ignore_mismatched_sizes=True
    )
    if language is not None:
        model.init_adapter_layers()
        model.freeze_base_model()
        for weight in model._get_adapters().values():
            weight.requires_grad = True
    else:
        model.freeze_feature_encoder()

    def prepared(row):
        sample = decoded(row["audio"])
        inputs = extractor(sample["array"], sampling_rate=sample["sampling_rate"])
        row["input_values"] = getattr(inputs, extractor.model_input_names[0])[0]
        row["input_length"] = len(row["input_values"])
        row["labels"] = tokenizer(row["target_text"]).input_ids
        return row

    with arguments.main_process_first(desc="preprocessing"):
        rows = rows.map(prepared, remove_columns=rows["train"].column_names, num_proc=None)
        most = 20.0 * extractor.sampling_rate
        rows = rows.filter(lambda length: 0 < length < most, input_columns=["input_length"])

    def compute_metrics(predicted):
        ids = np.argmax(predicted.predictions, axis=-1)
        predicted.label_ids[predicted.label_ids == -100] = tokenizer.pad_token_id
        found = tokenizer.batch_decode(ids)
        return {"wer": word_error_rate(found, tokenizer.batch_decode(predicted.label_ids, group_tokens=False))}

    with arguments.main_process_first():
        for one in (extractor, tokenizer, config):
            one.save_pretrained(arguments.output_dir)
    processor = models.AutoProcessor.from_pretrained(arguments.output_dir)
    trainer = transformers.Trainer(
        model=model,
        data_collator=Collator(processor),
        args=arguments,
        compute_metrics=compute_metrics,
        train_dataset=rows["train"],
        eval_dataset=rows["eval"],
        processing_class=processor,
    )
    trained = trainer.train(resume_from_checkpoint=last)
    trainer.save_model()
    metrics = trainer.evaluate()
    reported(trainer, trained, metrics)
    card = {"finetuned_from": str(start), "tasks": "automatic-speech-recognition", "tags": ["digits"]}
    if language is not None:
        name = f"adapter.{language}.safetensors"
        if hasattr(model, "save_adapter"):
            model.save_adapter(out, language)
        else:
            import safetensors.torch

            safetensors.torch.save_file(model._get_adapters(), out / name, metadata={"format": "pt"})
        card["language"] = language
    trainer.create_model_card(**card)
    return trainer, metrics
