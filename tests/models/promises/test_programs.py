"""Programs written for transformers with the models of raysp: Trainers, pipelines, accelerate, PEFT, `generate`."""

import copy
import inspect
import io
import pickle
import re
from dataclasses import fields
from pathlib import Path

import accelerate
import numpy as np
import peft
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

from raysp.checkpoints.hub import NOT_TAKEN
from raysp.models import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)
from raysp.models import SpeechEncoderDecoderModel as EncoderDecoder
from raysp.models.base.modeling import ARGUMENTS, UPLOADING, Model
from raysp.models.decoder.logits import MinP
from tests.models.oracles import TINY, transformers
from tests.models.test_keywords import Rows, assert_same, encoder_decoder

DEMO = Path(__file__).parents[3] / "pipelines" / "demo"
DIGITS = DEMO / "unispeech-digits-ctc"
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference.md"
RATE = 16_000
pytestmark = pytest.mark.usefixtures("uncollected")


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(DIGITS)


@pytest.fixture(scope="module")
def recordings():
    rows = pq.read_table(sorted((DEMO / "audio").glob("*.parquet"))[0]).slice(0, 3).to_pylist()
    waves = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32") for row in rows]
    return [{"raw": soxr.resample(wave, rate, RATE), "sampling_rate": RATE} for wave, rate in waves]


@pytest.fixture
def tiny_ctc(tmp_path) -> Path:
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**TINY)).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def trained(model, folder, trainer, arguments, **options):
    """Train two steps, save, load, and go on from the first checkpoint; return trainer and evaluation."""
    given = {"max_steps": 2, "save_steps": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True, **options}
    arguments = arguments(str(folder), **given)
    made = trainer(model=model, args=arguments, train_dataset=Rows(), eval_dataset=Rows())
    made.train()
    found = made.evaluate()
    made.save_model(str(folder / "final"))
    assert_same(type(model).from_pretrained(folder / "final"), model)
    for saved in ("final", "checkpoint-1", "checkpoint-2"):
        assert (folder / saved / "config.json").is_file()
    made.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_saves_a_checkpoint_that_loads_and_goes_on(tmp_path, tiny_ctc):
    model = Wav2Vec2ForCTC.from_pretrained(tiny_ctc)
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "gradient_checkpointing": True}
    found = trained(model, tmp_path / "out", transformers.Trainer, transformers.TrainingArguments, **best)
    assert np.isfinite(found["eval_loss"])
    assert transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path / "out" / "final") is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_compiles_the_model_and_stops_early_as_with_that_of_transformers(tmp_path, tiny_ctc):
    options = {
        **{"max_steps": 4, "eval_steps": 1, "save_steps": 1, "eval_strategy": "steps", "load_best_model_at_end": True},
        **{"learning_rate": 0.0, "torch_compile": True, "torch_compile_backend": "eager"},
        **{"use_cpu": True, "report_to": [], "disable_tqdm": True},
    }
    done = {}
    for classes in (Wav2Vec2ForCTC, transformers.Wav2Vec2ForCTC):
        model = classes.from_pretrained(tiny_ctc)
        arguments = transformers.TrainingArguments(str(tmp_path / classes.__module__), **options)
        given = {"train_dataset": Rows(), "eval_dataset": Rows()}
        stopping = transformers.EarlyStoppingCallback(2, early_stopping_threshold=1e6)
        trainer = transformers.Trainer(model=model, args=arguments, callbacks=[stopping], **given)
        trainer.train()
        done[classes] = trainer.state.global_step
        assert_same(classes.from_pretrained(trainer.state.best_model_checkpoint), model)
    assert done == dict.fromkeys(done, 3)  # no later evaluation is better by so much


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_text_decoders_generates_and_saves_tied_weights(tmp_path):
    options = {"predict_with_generate": True, "generation_max_length": 5}
    arguments = transformers.Seq2SeqTrainingArguments
    found = trained(encoder_decoder(), tmp_path / "out", transformers.Seq2SeqTrainer, arguments, **options)
    assert np.isfinite(found["eval_loss"])


def test_a_model_keeps_its_class_beside_the_trainer(tiny_ctc):
    model = Wav2Vec2ForCTC.from_pretrained(tiny_ctc)
    assert transformers.Trainer is not None
    assert isinstance(model, transformers.PreTrainedModel)
    assert isinstance(model, Wav2Vec2ForCTC)
    assert type(model) is Wav2Vec2ForCTC
    assert model.__class__.__name__ == "Wav2Vec2ForCTC"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is Wav2Vec2ForCTC
        assert_same(other, model)


def pipeline(model, parts, **options):
    task = options.pop("task", "automatic-speech-recognition")
    extractor = parts.feature_extractor
    return transformers.pipeline(task, model=model, tokenizer=parts.tokenizer, feature_extractor=extractor, **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipeline_of_speech_gives_the_texts_of_transformers(processor, recordings):
    theirs = transformers.Wav2Vec2Processor.from_pretrained(DIGITS)
    ours = UniSpeechForCTC.from_pretrained(DIGITS), processor
    original = transformers.UniSpeechForCTC.from_pretrained(DIGITS), theirs
    longer = {"raw": np.tile(recordings[0]["raw"], 6), "sampling_rate": RATE}
    for given, options, call in (
        (recordings[0], {}, {}),
        (longer, {"chunk_length_s": 1.0, "stride_length_s": 0.2}, {}),
        (recordings[0], {}, {"return_timestamps": "char"}),
        (recordings[1], {}, {"return_timestamps": "word"}),
    ):
        found, expected = (pipeline(*one, **options)(dict(given), **call) for one in (ours, original))
        assert found == expected
        assert found["text"]
    batched = pipeline(*ours)([dict(one) for one in recordings], batch_size=2)
    assert [one["text"] for one in batched] == [pipeline(*original)(dict(one))["text"] for one in recordings]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pipelines_of_classes_and_of_text_decoders_run(processor, recordings):
    config = UniSpeechConfig.from_pretrained(DIGITS, num_labels=3)
    torch.manual_seed(0)
    classes = UniSpeechForSequenceClassification(config).eval()
    found = transformers.pipeline("audio-classification", model=classes, feature_extractor=processor.feature_extractor)
    assert len(found(dict(recordings[0]), top_k=2)) == 2
    writing = pipeline(encoder_decoder().eval(), processor)
    assert isinstance(writing(dict(recordings[0]), generate_kwargs={"max_new_tokens": 5})["text"], str)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["dispatch", "load", "cpu", "disk"])
def test_accelerate_places_and_offloads_weights_without_another_result(tiny_ctc, tmp_path, way):
    model, waves = Wav2Vec2ForCTC.from_pretrained(tiny_ctc), torch.randn(2, 3000)
    cpu = torch.device("cpu")
    if way == "dispatch":
        places = accelerate.infer_auto_device_map(model, max_memory={"cpu": 10**9})
        assert dict(places) == {"": "cpu"}
        placed = accelerate.dispatch_model(copy.deepcopy(model), places, force_hooks=True)
    elif way == "load":
        with accelerate.init_empty_weights():
            empty = Wav2Vec2ForCTC(Wav2Vec2Config.from_pretrained(tiny_ctc))
        placed = accelerate.load_checkpoint_and_dispatch(empty, str(tiny_ctc), device_map={"": "cpu"}).eval()
    elif way == "cpu":
        placed = accelerate.cpu_offload(copy.deepcopy(model), cpu)
    else:
        placed = accelerate.disk_offload(copy.deepcopy(model), str(tmp_path / "disk"), execution_device=cpu)
    with torch.no_grad():
        assert torch.allclose(placed(waves).logits, model(waves).logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_peft_is_trained_saved_and_merged(tiny_ctc, tmp_path):
    options = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    adapted = peft.get_peft_model(Wav2Vec2ForCTC.from_pretrained(tiny_ctc), options)
    arguments = transformers.TrainingArguments(str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to=[])
    trainer = transformers.Trainer(model=adapted, args=arguments, train_dataset=Rows())
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    loaded = peft.PeftModel.from_pretrained(Wav2Vec2ForCTC.from_pretrained(tiny_ctc), str(tmp_path / "adapter"))
    merged, waves = loaded.merge_and_unload(), torch.randn(1, 3000)
    merged.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        expected = adapted.eval()(waves).logits
        assert torch.allclose(merged.eval()(waves).logits, expected, atol=1e-5)
        assert torch.allclose(Wav2Vec2ForCTC.from_pretrained(tmp_path / "merged")(waves).logits, expected, atol=1e-5)


class Stream:
    """A streamer that keeps what it gets."""

    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, tokens):
        self.tokens.append(tokens)

    def end(self):
        self.ended = True


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    encoder_decoder().save_pretrained(folder)
    return EncoderDecoder.from_pretrained(folder), transformers.SpeechEncoderDecoderModel.from_pretrained(folder).eval()


def test_generate_takes_the_functions_and_the_options_of_transformers(decoders):
    waves = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    tokens = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    allowed = {"prefix_allowed_tokens_fn": lambda row, ids: [5 + row, 7, 9], "max_new_tokens": 5, **tokens}
    given = transformers.GenerationConfig(max_new_tokens=3, num_beams=2, **tokens)
    for options in (allowed, {**allowed, "num_beams": 2}, {"generation_config": given}):
        found, expected = (model.generate(waves, **options).tolist() for model in decoders)
        assert found == expected
    stream = Stream()
    found = decoders[0].generate(waves, streamer=stream, max_new_tokens=4)
    columns = torch.cat([stream.tokens[0], *(one[:, None] for one in stream.tokens[1:])], 1)
    assert torch.equal(columns, found)
    assert stream.ended
    with pytest.raises(ValueError, match="streamer given with num_beams=2, expected one beam"):
        decoders[0].generate(waves, streamer=Stream(), num_beams=2)
    with pytest.raises(ValueError, match="returned no token for row 0"):
        decoders[0].generate(waves, prefix_allowed_tokens_fn=lambda row, ids: [])


@pytest.mark.parametrize(("share", "at_least"), [(0.1, 1), (0.5, 1), (1.0, 3)])
def test_tokens_below_a_share_of_the_best_are_left_out_as_in_transformers(share, at_least):
    scores = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 3
    theirs = transformers.MinPLogitsWarper(share, min_tokens_to_keep=at_least)(None, scores.clone())
    found = MinP(share, at_least)(torch.zeros(4, 1), scores.clone())
    assert torch.equal(found.softmax(-1) > 1e-12, theirs.softmax(-1) > 1e-12)


def taken(call: str) -> set[str]:
    """Return the keywords that the table of the documents names as taken by a call."""
    row = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {call} |"))
    return {*re.findall(r"`(\w+)`", row.split("|")[2])}


def arguments_of(function) -> set[str]:
    return {*inspect.signature(function).parameters} - {"self", "save_directory", "overrides", "options"}


def test_the_table_of_keywords_is_that_of_the_code():
    assert taken("`from_pretrained`") == {*ARGUMENTS, "torch_dtype"}
    assert taken("`save_pretrained`") == {*arguments_of(Model.save_pretrained), *UPLOADING, "save_function"}
    assert taken("`generate`") == {*arguments_of(EncoderDecoder.generate), "GenerationConfig"}
    assert taken("options of `GenerationConfig`") == {one.name for one in fields(GenerationConfig)}


@pytest.mark.parametrize("option", [{"trust_remote_code": True}, {"use_safetensors": False}])
def test_keywords_of_loading_that_are_not_taken_are_refused(tiny_ctc, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Wav2Vec2ForCTC.from_pretrained(tiny_ctc, **option)


@pytest.mark.parametrize("keyword", NOT_TAKEN)
def test_keywords_of_loading_that_are_not_taken_are_refused_by_all_classes_with_a_way_out(keyword):
    for cls in (AutoConfig, AutoTokenizer, AutoFeatureExtractor, AutoProcessor, AutoModelForCTC, UniSpeechForCTC):
        for value in ("x", {}):
            with pytest.raises(ValueError, match=f"^{keyword}={value!r} given, which raysp does not take: "):
                cls.from_pretrained(DIGITS, **{keyword: value})
        assert cls.from_pretrained(DIGITS, **{keyword: None}) is not None


@pytest.mark.parametrize("option", [{"safe_serialization": False}, {"token": "x"}, {"distributed_checkpoint": True}])
def test_keywords_of_saving_that_are_not_taken_are_refused(tiny_ctc, tmp_path, option):
    model = Wav2Vec2ForCTC.from_pretrained(tiny_ctc)
    with pytest.raises((TypeError, ValueError), match=next(iter(option))):
        model.save_pretrained(tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()
    model.save_pretrained(tmp_path / "out", save_function=torch.save)


@pytest.mark.parametrize("name", ["assistant_model", "stop_strings", "max_time", "penalty_alpha", "guidance_scale"])
def test_options_of_generation_that_are_not_taken_are_refused_in_one_line(decoders, name):
    with pytest.raises(ValueError, match=f"generation does not support {name}=") as raised:
        decoders[0].generate(torch.zeros(1, 3000), **{name: decoders[1]})
    assert "\n" not in str(raised.value)


def test_tokens_are_added_behind_the_others(processor):
    tokenizer = AutoProcessor.from_pretrained(DIGITS).tokenizer
    before = len(tokenizer)
    assert tokenizer.add_tokens(["<hm>", "<hm>"]) == 1
    assert (len(tokenizer), tokenizer.get_vocab()["<hm>"]) == (before + 1, before)
    assert tokenizer.encode("ONE<hm>")[-1] == before
    assert processor.model_input_names == [*processor.feature_extractor.model_input_names, "labels"]
    with pytest.raises(TypeError, match=r"processor\(text=texts\)"):
        processor.as_target_processor()
