"""Make the tours beside this file: the commands of several kinds of user, run in order, with their output.

`make tour` runs it. Machine-dependent output is replaced by "..." or a fixed word, so that a tour changes only when
raysp does.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "pipelines" / "demo"
LINES = 60
"""Maximum number of lines that a command prints."""

PIPELINE = """\
import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards({source}),
    steps=[raysp.Decode(), raysp.Label("checkpoint", outputs=[{outputs}])],
    sink=raysp.Parquet("labels"),
)
"""


@dataclass(frozen=True)
class File:
    """A file that the user writes."""

    name: str
    text: str


Step = File | str
"""A file, a command line (beginning with `$ `), or a sentence of the page."""

DATASETS = [
    "Recordings with their texts form a data set of `datasets`. `save_to_disk` writes it including the recordings.",
    File(
        "save.py",
        """\
import datasets

rows = datasets.load_dataset("parquet", data_files="digits/*.parquet", split="train")
rows.select(range(12)).save_to_disk("corpus")
""",
    ),
    "$ python save.py 2>/dev/null; ls corpus",
    "The folder can be used as a source directly. `plan` shows what a run would do; `--rows` labels the first rows.",
    File("label.py", PIPELINE.format(source='"corpus", text="text"', outputs="raysp.Transcript()")),
    "$ raysp plan label.py",
    "$ raysp run label.py --rows 5",
    "The run writes the labels of all rows to `labels`. `datasets` can read them.",
    "$ raysp run label.py",
    File(
        "read.py",
        """\
import datasets

labels = datasets.load_dataset("parquet", data_dir="labels", split="train")
print(labels.num_rows, labels.column_names)
print([row["pred_text"] for row in labels.select(range(4))])
""",
    ),
    "$ python read.py 2>/dev/null",
]

MODELS = [
    "The models can be used without a pipeline, under the names of `transformers`.",
    "$ raysp inspect checkpoint",
    File(
        "one.py",
        """\
import io

import pyarrow.parquet as pq
import soundfile
import soxr
import torch

from raysp.models import AutoModelForCTC, AutoProcessor

rows = pq.read_table("digits/part-0.parquet").slice(0, 4).to_pylist()
read = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32") for row in rows]
waves = [soxr.resample(wave, rate, 16_000) for wave, rate in read]
processor = AutoProcessor.from_pretrained("checkpoint")
model = AutoModelForCTC.from_pretrained("checkpoint").eval()
inputs = processor(waves, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
with torch.no_grad():
    ids = model(**inputs).logits.argmax(-1)
for row, text in zip(rows, processor.batch_decode(ids)):
    print(f"{row['text']:6} {text}")
""",
    ),
    "The texts of a padded batch equal those of each recording alone.",
    "$ python one.py",
    "$ raysp models",
]

SUBTITLES = [
    "A folder of recordings is to have subtitles. Of some recordings the text is known: it stands beside them.",
    File(
        "recordings.py",
        """\
from pathlib import Path

import pyarrow.parquet as pq

for row in pq.read_table("digits").slice(0, 6).to_pylist():
    folder = Path("recordings", row["speaker_id"])
    folder.mkdir(parents=True, exist_ok=True)
    name = row["id"].replace("_", " ")
    (folder / f"{name}.wav").write_bytes(row["audio"]["bytes"])
    if row["text"] != "six":
        (folder / f"{name}.txt").write_text(row["text"])
""",
    ),
    "$ python recordings.py; ls recordings/*",
    File("label.py", PIPELINE.format(source='"recordings", text="text"', outputs="raysp.Transcript(words=True)")),
    "The known texts give the word error rate.",
    "$ raysp run label.py",
    "Subtitles stand beside the recordings, under their names, where players look for them.",
    "$ raysp export label.py --to srt --beside",
    "$ ls recordings/*; cat recordings/jackson/*.srt",
    "A file that raysp has not written, or that was corrected by hand, is never replaced.",
    "$ sed -i s/FIVE/five./ recordings/jackson/*.srt; raysp export label.py --to srt --beside --restart",
    "$ cat recordings/jackson/*.srt",
    "Talks are longer than a cue. `raysp label` does the whole job without a file, here with a model of digits.",
    File(
        "talks.py",
        """\
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

rows = pq.read_table("digits").to_pylist()
Path("talks").mkdir()
for talk in range(2):
    read = [soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0] for row in rows[talk * 60 : talk * 60 + 60]]
    parts = [part for place, wave in enumerate(read) for part in (wave, np.zeros(800 + 4000 * (place % 9 == 8)))]
    soundfile.write(f"talks/talk {talk}.flac", np.concatenate(parts), 8000)
""",
    ),
    "$ python talks.py; raysp label talks --model checkpoint --to srt",
    "A parser of subtitles reads them: cues of at most two lines of 42 characters, and of 5/6 to 7 seconds.",
    File(
        "check.py",
        """\
from pathlib import Path

import pysubs2

for path in sorted(Path("talks").glob("*.srt")):
    cues = pysubs2.load(str(path))
    lines = [line for cue in cues for line in cue.plaintext.split("\\n")]
    seconds = [cue.duration / 1000 for cue in cues]
    print(f"{path}: {len(cues)} cues, lines of at most {max(map(len, lines))} characters")
    print(f"shown for {min(seconds):.2f} to {max(seconds):.2f} s, the first: {cues[0].plaintext!r}")
""",
    ),
    "$ python check.py",
]

TRAINING = [
    "A model makes many errors in my recordings: here digits with noise as loud as speech. Texts stand beside them.",
    File(
        "recordings.py",
        """\
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

draw = np.random.default_rng(0)
for number, row in enumerate(pq.read_table("digits").to_pylist()):
    wave, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    noise = draw.normal(0, np.sqrt(np.mean(wave**2)), wave.size)
    folder = Path("recordings", "dev" if number % 4 == 0 else "train")
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{row['id']}.wav", 0.5 * (wave + noise), rate)
    (folder / f"{row['id']}.txt").write_text(row["text"])
""",
    ),
    "$ python recordings.py; ls recordings/dev | head -4",
    "Word errors before the training, in recordings that it does not see:",
    "$ raysp evaluate checkpoint recordings/dev --text text --worst 3",
    File(
        "finetune.py",
        """\
import raysp

recipe = raysp.Finetune(
    raysp.Shards("recordings/train", text="text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC("checkpoint", text=raysp.Text("upper", keep="letters")),
    schedule=raysp.Schedule(epochs=4, learning_rate=3e-4),
    batching=raysp.Batching(seconds=10, micro_batches=1),
    evaluation=raysp.Evaluation(raysp.Shards("recordings/dev", text="text"), every=12),
    sink=raysp.Checkpoint("finetuned"),
)
""",
    ),
    "`plan` shows what is trained on, and the size of a commit.",
    "$ raysp plan finetune.py",
    "The training is killed on its way. The same command goes on after its last commit, to the same weights.",
    "$ raysp finetune finetune.py > killed.log 2>&1 & "
    "until grep -sq 'evaluation at step 24' killed.log; do sleep 0.1; done; kill -KILL $!",
    "$ raysp status finetuned",
    "$ raysp finetune finetune.py",
    "The sink is a checkpoint as those of the hub are. Word errors after the training:",
    "$ ls finetuned",
    "$ raysp evaluate finetuned recordings/dev --text text --worst 3",
]

LANGUAGE_MODEL = [
    "Recordings of a field have words that a recogniser spells wrongly: here numbers that are read out on a bad line.",
    File(
        "calls.py",
        """\
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

rows = pq.read_table("digits").to_pylist()
draw = np.random.default_rng(0)
Path("calls").mkdir()
for call in range(20):
    chosen = [rows[place] for place in draw.integers(0, len(rows), 6)]
    waves = [soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0] for row in chosen]
    spoken = np.concatenate([part for wave in waves for part in (wave, np.zeros(1600))])
    noise = draw.normal(0, 0.3 * spoken.std(), spoken.size)
    soundfile.write(f"calls/call-{call:02}.wav", 0.5 * (spoken + noise), 8000)
    Path(f"calls/call-{call:02}.txt").write_text(" ".join(row["text"] for row in chosen))
""",
    ),
    "$ python calls.py; raysp evaluate checkpoint calls --text text --worst 3",
    "A language model in the ARPA format knows the words, written as in the checkpoint's vocabulary. KenLM makes one "
    "of texts (`lmplz -o 3`); this one has just the words, from texts of other calls.",
    File(
        "words.py",
        """\
import math
from collections import Counter

texts = ["one eight five six", "two zero nine five", "four seven three", "zero six eight", "nine one two", "three four"]
words = Counter(" ".join(f"<s> {text.upper()} </s>" for text in texts).split())
with open("words.arpa", "w") as file:
    print(f"\\\\data\\\\\\nngram 1={len(words) + 1}\\n\\n\\\\1-grams:\\n-99\\t<unk>", file=file)
    for word, times in sorted(words.items()):
        print(f"{math.log10(times / words.total()):.4f}\\t{word}", file=file)
    print("\\n\\\\end\\\\", file=file)
""",
    ),
    "$ python words.py; head -6 words.arpa",
    File(
        "label.py",
        PIPELINE.format(source='"calls", text="text"', outputs='raysp.Transcript(beams=16, lm="words.arpa")'),
    ),
    "$ raysp run label.py",
    "Without a language model, hot words raise the score of words that matter.",
    "$ raysp run label.py --set sink.url=hot --set steps.1.outputs.0.lm=null "
    """--set 'steps.1.outputs.0.hot_words={"SEVEN": 4, "ZERO": 4}'""",
    "The two compared, against the texts:",
    "$ raysp diff hot labels --worst 3",
]

PHONETICS = [
    "Recordings and their texts are there, and the times of the words are wanted, for Praat.",
    File(
        "recordings.py",
        """\
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

rows = pq.read_table("digits").to_pylist()
for number in range(6):
    chosen = rows[number * 5 : number * 5 + 5]
    folder = Path("recordings", chosen[0]["speaker_id"])
    folder.mkdir(parents=True, exist_ok=True)
    waves = [soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0] for row in chosen]
    spoken = np.concatenate([part for wave in waves for part in (np.zeros(2000), wave)])
    soundfile.write(folder / f"reading {number}.wav", spoken, 8000)
    text = "nine nine nine nine" if number == 3 else " ".join(row["text"] for row in chosen)
    (folder / f"reading {number}.txt").write_text(text)
""",
    ),
    "$ python recordings.py; head -1 recordings/*/*.txt | grep .",
    File("align.py", PIPELINE.format(source='"recordings", text="text"', outputs='raysp.Align("text", chars=True)')),
    "$ raysp run align.py",
    "A text that is not what is said has a low score.",
    File(
        "scores.py",
        """\
import pandas as pd

labels = pd.read_parquet("labels").sort_values("aligned_score")
print(labels[["id", "text", "aligned_score"]].round(2).to_string(index=False))
""",
    ),
    "$ python scores.py",
    "$ raysp export labels grids --to textgrid --set to.column=aligned; ls grids/*",
    "Praat's format, read by another program:",
    File(
        "read.py",
        """\
from pathlib import Path

from praatio import textgrid

for path in sorted(Path("grids").rglob("*.TextGrid"))[:2]:
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    words = grid.getTier("words").entries
    print(f"{path}: tiers {', '.join(grid.tierNames)}, {grid.maxTimestamp:.2f} s")
    print("  " + ", ".join(f"{one.label} {one.start:.2f}-{one.end:.2f}" for one in words))
""",
    ),
    "$ python read.py",
]

SEARCH = [
    "Which recordings sound alike? Vectors of recordings answer that, for search, clustering and duplicates.",
    File("embed.py", PIPELINE.format(source='"digits"', outputs="raysp.Embedding(normalize=True)")),
    "$ raysp run embed.py",
    "Label shards hold the vectors, one a row. With vectors of length 1 the inner product is the cosine.",
    File(
        "search.py",
        """\
import numpy as np
import pandas as pd

labels = pd.read_parquet("labels")
vectors = np.stack(labels.embedding)
print(f"{len(labels)} vectors of {vectors.shape[1]} numbers")
near = vectors @ vectors.T
for row in (0, 100, 200):
    found = np.argsort(-near[row])[1:4]
    print(labels.id[row], "->", ", ".join(f"{labels.id[one]} {near[row, one]:.2f}" for one in found))
words = labels.id.str.split("_").str[1].to_numpy()
np.fill_diagonal(near, -1)
print(f"the nearest recording has the same word in {np.mean(words[near.argmax(axis=1)] == words):.0%} of the rows")
""",
    ),
    "$ python search.py",
]

SCEPTIC = [
    "What does raysp do to my files, and how do I know that the labels are right? `plan` writes nothing.",
    File("label.py", PIPELINE.format(source='"digits", text="text"', outputs="raysp.Transcript(words=True)")),
    "$ raysp plan label.py; ls",
    "A run whose recordings cannot be read does not succeed.",
    "$ mkdir broken; for n in 1 2 3; do echo nonsense > broken/$n.wav; done",
    "$ raysp run label.py --set source.url=broken --set source.text=null --rows 3",
    "$ raysp plan label.py --set source.url=nowhere",
    "$ raysp plan label.py --set steps.1.windw_seconds=20",
    "Valid rows are labelled, each with the times of its words.",
    "$ raysp run label.py --rows 3",
    "So far nothing was written.",
    "$ ls; raysp status labels",
    "A run writes to `labels` only. The same command again labels nothing twice.",
    "$ raysp run label.py; ls",
    "$ raysp run label.py",
    "`verify` reads every label shard and labels a sample of rows again, each alone. It detects changes.",
    "$ raysp verify label.py --sample 10",
    "$ cp labels/part-0.parquet labels/part-1.parquet; raysp verify label.py",
]

RECOGNITION = [
    "Which of two checkpoints is better for a corpus? The second is the first with a third of its weights set to 0.",
    File(
        "prune.py",
        """\
import torch

from raysp.models import AutoModelForCTC, AutoProcessor

model = AutoModelForCTC.from_pretrained("checkpoint")
with torch.no_grad():
    for weight in (one for one in model.parameters() if one.ndim == 2):
        weight[weight.abs() < weight.abs().quantile(0.33)] = 0
model.save_pretrained("pruned")
AutoProcessor.from_pretrained("checkpoint").save_pretrained("pruned")
""",
    ),
    "$ python prune.py; ls pruned",
    "The reference texts are in the column `text`. `Keep` filters recordings by duration or by their columns.",
    File(
        "label.py",
        """\
import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards("digits", text="text"),
    steps=[
        raysp.Keep(where=[("speaker_id", "!=", "lucas")]),
        raysp.Decode(),
        raysp.Keep(min_seconds=0.2),
        raysp.Label("checkpoint", outputs=[raysp.Transcript(words=True)]),
    ],
    sink=raysp.Parquet("labels", keep=["speaker_id"]),
)
""",
    ),
    "$ raysp plan label.py",
    "$ raysp run label.py --rows 5",
    "A complete run prints the word error rate and the number of each kind of error. So does `status`.",
    "$ raysp run label.py",
    "$ raysp run label.py --set steps.3.checkpoint=pruned --set sink.url=labels-pruned",
    "$ raysp status labels-pruned",
    "Labels of another checkpoint never mix with existing ones.",
    "$ raysp run label.py --set steps.3.checkpoint=pruned",
    "Label shards are Parquet files with one row per row of the corpus.",
    File(
        "compare.py",
        """\
import datasets
import pandas as pd
import pyarrow.dataset as ds

before, after = pd.read_parquet("labels"), pd.read_parquet("labels-pruned")
both = before.merge(after, on="id", suffixes=("", "_pruned")).query("status == 'ok'")
wrong = both[["pred_text", "pred_text_pruned"]].ne(both.text.str.upper(), axis=0)
print(wrong.groupby(both.speaker_id).mean().round(3), end="\\n\\n")
changed = both[both.pred_text != both.pred_text_pruned]
print(changed[["id", "pred_text", "pred_text_pruned"]].head(5).to_string(index=False), end="\\n\\n")
table = ds.dataset("labels").to_table(filter=ds.field("status") == "ok", columns=["id", "pred_words"])
print(table.num_rows, "ok rows; the words of one:", table["pred_words"][0].as_py())
print(datasets.load_dataset("parquet", data_dir="labels", split="train").num_rows, "rows for datasets")
""",
    ),
    "$ python compare.py 2>/dev/null",
    "`diff` compares them row by row, with intervals, and writes a page that plays the rows that differ.",
    "$ raysp diff label.py labels-pruned --worst 5 --html difference.html",
    "Missing recordings become error rows. Once the recordings are there, `retry` labels these rows and no others.",
    File(
        "manifest.py",
        """\
import json
from pathlib import Path

import pyarrow.parquet as pq

Path("recordings").mkdir()
with open("late.jsonl", "w") as lines:
    for row in pq.read_table("digits").slice(0, 4).to_pylist():
        name = f"{row['id']}.wav"
        Path("recordings" if len(name) < 20 else ".", name).write_bytes(row["audio"]["bytes"])
        print(json.dumps({"audio_filepath": f"recordings/{name}", "text": row["text"]}), file=lines)
""",
    ),
    File(
        "late.py",
        PIPELINE.format(source='"late.jsonl", text="text"', outputs="raysp.Transcript()").replace('"labels"', '"late"'),
    ),
    "$ python manifest.py; raysp run late.py",
    "$ mv *.wav recordings; raysp retry late.py",
    "$ raysp status late",
]

BUCKET = [
    "From one bucket to another. The endpoint and the keys are in the environment: `AWS_ENDPOINT_URL`, "
    "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.",
    File(
        "put.py",
        """\
from pathlib import Path

import boto3

s3 = boto3.client("s3", region_name="us-east-1")
s3.create_bucket(Bucket="corpus")
for file in sorted(Path("digits").iterdir()):
    s3.upload_file(file, "corpus", f"audio/{file.name}")
    print(f"s3://corpus/audio/{file.name}")
""",
    ),
    "$ python put.py",
    File(
        "label.py",
        """\
import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://corpus/audio/*.parquet", text="text"),
    steps=[raysp.Decode(), raysp.Label("checkpoint", outputs=[raysp.Transcript()])],
    sink=raysp.Parquet("s3://corpus/labels", keep=["speaker_id"]),
)
""",
    ),
    "Wrong keys, missing keys and misspelt names are rejected before any work starts.",
    "$ AWS_SECRET_ACCESS_KEY=wrong raysp plan label.py",
    "$ env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY raysp plan label.py",
    "$ raysp plan label.py --set 'source.url=s3://corpus/audoi/*.parquet'",
    "$ raysp plan label.py --set 'source.url=s3://corpsu/audio/*.parquet'",
    "With the right keys and names:",
    "$ raysp plan label.py",
    "$ raysp run label.py --rows 3",
    "$ raysp run label.py",
    "$ raysp status s3://corpus/labels",
    "$ raysp verify label.py --sample 3",
    "Keys in variables with other names are passed as options: secrets by the name of the variable, never literally.",
    "$ export CORPUS_SECRET=$AWS_SECRET_ACCESS_KEY CORPUS_KEY=$AWS_ACCESS_KEY_ID; "
    "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; "
    "raysp status s3://corpus/labels --storage-option key=env:CORPUS_KEY --storage-option secret=env:CORPUS_SECRET",
    "$ raysp status s3://corpus/labels --storage-option secret=testtest",
]

CLUSTER = [
    "A cluster of one machine. Without its token nobody can run code on it. On several machines the address "
    "is that of the head, and the others join with `ray start --address`.",
    "$ ray get-auth-token --generate > token 2> /dev/null; "
    "RAY_AUTH_MODE=token ray start --head --port 6379 --node-ip-address 127.0.0.1 --num-cpus 2 "
    "--include-dashboard=false --disable-usage-stats > ray.log 2>&1; ls",
    "A corpus of twelve shards:",
    File(
        "split.py",
        """\
from pathlib import Path

import pyarrow.parquet as pq

rows = pq.read_table("digits")
Path("corpus").mkdir()
for number in range(12):
    pq.write_table(rows.slice(25 * number, 25), f"corpus/part-{number:02}.parquet")
""",
    ),
    File("label.py", PIPELINE.format(source='"corpus", text="text"', outputs="raysp.Transcript()")),
    "Without the token, or if no cluster listens at the address, a run is refused before any work starts.",
    "$ python split.py; raysp run label.py --address 127.0.0.1:6379",
    "$ RAY_AUTH_MODE=token raysp run label.py --address 127.0.0.1:1",
    "With the token, a run resumes where another one was killed. This one is killed as soon as a label shard exists.",
    "$ RAY_AUTH_MODE=token raysp run label.py --address 127.0.0.1:6379 > killed.log 2>&1 & "
    "until ls labels/*.parquet > /dev/null 2>&1; do sleep 0.1; done; kill -KILL $!",
    "$ raysp status labels",
    "$ RAY_AUTH_MODE=token raysp run label.py --address 127.0.0.1:6379",
    "The same command again does nothing. `RAY_ADDRESS` has the same effect as `--address`.",
    "$ RAY_AUTH_MODE=token RAY_ADDRESS=127.0.0.1:6379 raysp run label.py",
    "$ raysp verify label.py --sample 3",
    "`ray stop` stops the cluster.",
]

# Output that depends on the moment at which a run is killed.
KILLED = [
    (r"(?!0 )\d+ of 300 rows to do; \d+ of 12 shards", "... of 300 rows to do; ... of 12 shards"),
    (r"\b(?!12 )\d+ of 12 shards committed(, \d+ more begun)?$", "... of 12 shards committed"),
    (r"12 of 12 shards committed, \d+ of them", "12 of 12 shards committed, ... of them"),
    (r"\d+ of 300 rows committed \(\d+%\)(, [\d,]+ more labelled)?", "... of 300 rows committed"),
    (r"this run     \d+ rows, [\d:]+ of audio", "this run     ... rows, ... of audio"),
    (r"audio  ( *)[\d:]+ in committed", r"audio  \1... in committed"),
    (r"labels  ( *)\d+ ok", r"labels  \1... ok"),
    (r"[\d.]+% of (?!300 )\d+ reference words in \d+ labelled rows (.*): \d+ sub\w+, \d+ ins\w+, \d+ del\w+",
     r"...% of ... reference words in ... labelled rows \1: ... substitutions, ... insertions, ... deletions"),
]  # fmt: skip
KILLED_TRAINING = [
    (r"^  steps       \d+ committed.*", "  steps       ... committed"),
    (r"^  epochs      \d of 4 done", "  epochs      ... of 4 done"),
    (r"[\d.]+ s of audio a second", "... s of audio a second"),
    (r"this run     [\d:]+ of audio in", "this run     ... of audio in"),
    (r"waited for rows [\d.]+% of the time", "waited for rows ...% of the time"),
    (r"this machine has [\d.]+ GB", "this machine has ... GB"),
]
TRAINED = (
    r"(?m)^raysp: evaluation at step .*\n",
    r"(?m)^(steps|best|WER|CER|  loss|  rate|  evaluation) .*\n",
    r"(?m)^checkpoint   finetuned \(.*\n",
    r"(?m)^\S+\.wav  \d/\d .*\n",
)
"""Lines of a page whose numbers or presence depend on the processor, or on the moment of the kill."""


@contextlib.contextmanager
def bucket_server() -> Iterator[Mapping[str, str]]:
    """Run an object store that checks keys; yield the environment with the keys of a user."""
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "3"
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        place = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
        iam = boto3.client("iam", **place, aws_access_key_id="first", aws_secret_access_key="first")
        iam.create_user(UserName="ann")
        rights = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="ann", PolicyName="all", PolicyDocument=rights)
        key = iam.create_access_key(UserName="ann")["AccessKey"]
        yield {
            "AWS_ENDPOINT_URL": place["endpoint_url"],
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    finally:
        server.stop()


@dataclass(frozen=True)
class Tour:
    """A page: a title, the steps of a user, and a context that provides environment variables."""

    title: str
    steps: list[Step]
    surroundings: Callable[[], AbstractContextManager[Mapping[str, str]]] = lambda: contextlib.nullcontext({})
    varies: tuple[tuple[str, str], ...] = ()
    """Patterns of output that differs between runs, and their replacements."""
    inexact: tuple[str, ...] = ()
    """Patterns of lines whose numbers are shown and may differ on another processor, as those of a trained model."""

    def comparable(self, page: str) -> str:
        """Return a page of the tour without what differs between processors."""
        for pattern in self.inexact:
            page = re.sub(pattern, "", page)
        return page


TOURS = {
    "datasets": Tour("With `datasets`", DATASETS),
    "subtitles": Tour("Subtitles for a folder", SUBTITLES),
    "training": Tour("A training on own recordings", TRAINING, varies=tuple(KILLED_TRAINING), inexact=TRAINED),
    "language_model": Tour("A language model and hot words", LANGUAGE_MODEL),
    "phonetics": Tour("Times of words for Praat", PHONETICS),
    "search": Tour("Search by sound", SEARCH),
    "models": Tour("The models alone", MODELS),
    "sceptic": Tour("A sceptic", SCEPTIC),
    "recognition": Tour("A recognition researcher", RECOGNITION),
    "bucket": Tour("From bucket to bucket", BUCKET, bucket_server),
    "cluster": Tour("On a Ray cluster", CLUSTER, varies=tuple(KILLED)),
}

REPLACED = [
    (r"\b\d+\.\d s: RTFx [\d,.]*\d", "... s: RTFx ..."),
    (r"RTFx [\d,.]*\d", "RTFx ..."),
    (r"ETA [\d:]+ · ", ""),
    (r"padding efficiency [\d.]+%", "padding efficiency ...%"),  # depends on the number of CPUs
    (r"waited for input [\d.]+%", "waited for input ...%"),
    (r"model waited \d+%", "model waited ...%"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "2026-01-01T00:00:00+00:00"),
    (r"this machine has \d+ CPUs?", "this machine has ... CPUs"),
    (r"\d+ (to \d+ )?actors?[^,]*, \d+ CPUs?( \([^)]*\))? and", "1 actor, 1 CPU and"),
    (r"\b[\d,.]+ padded seconds a pass", "... padded seconds a pass"),
    (r"input id: '[0-9a-f]{16}' -> '[0-9a-f]{16}'", "input id: '...' -> '...'"),  # of files just written
    (r"(\d\.\d{4})\d{6,}", r"\1..."),  # last digits depend on the processor
    (r"Ray cluster at [\d.]+:", "Ray cluster at 127.0.0.1:"),
    (
        r"run .*killed; the same command again continues: .*",
        "run          killed; the same command again continues: ...",
    ),
]


def normalised(text: str, folder: Path, varies: tuple[tuple[str, str], ...] = ()) -> str:
    """Return the output of a command without machine-dependent parts."""
    text = text.replace(f"{folder}/", "").replace(str(folder), "~")
    for pattern, put in [*REPLACED, *varies]:
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    lines = (line.rstrip() for line in text.splitlines())
    # Progress lines depend on the clock.
    return "\n".join(line for line in lines if not re.match(r"raysp: \d+% · ", line))


def check(command: str, said: str, code: int) -> None:
    """Check that the output fits one screen and that no failure exits with code 0."""
    if len(said.splitlines()) > LINES or "Traceback" in said:
        raise SystemExit(f"{command}\nprints more than {LINES} lines or a traceback:\n{said}")
    if not code and re.search(
        r"^raysp: .*(0 of .* were labelled|cannot |refused|no such|differs|nothing answers)", said, re.MULTILINE
    ):
        raise SystemExit(f"{command}\nfails with exit code 0:\n{said}")


def search_path() -> str:
    """Return PATH with the commands of this Python first."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Shell:
    """Runs the commands of a tour, and ends the processes that they leave.

    Args:
        folder: folder in which they run.
        environment: further environment variables.
        installed: folder of the commands of an installed raysp; None: the checkout is used.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], installed: Path | None = None) -> None:
        self.folder = folder
        of_raysp = {"PYTHONPATH": str(HERE.parents[1])} if installed is None else {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "XDG_"))}
        self.environment = {
            **{name: value for name, value in kept.items() if name != "PYTHONPATH"},
            **of_raysp,
            "PATH": search_path() if installed is None else f"{installed}:{search_path()}",
            "HOME": str(folder / ".home"),
            "COLUMNS": "100",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self.port = str(_free_port())
        self._sessions: list[int] = []

    def run(self, command: str) -> tuple[str, int]:
        """Return the output of a command and its exit code."""
        started = subprocess.Popen(
            ["bash", "-c", command.replace("6379", self.port)], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._sessions.append(started.pid)
        said, _ = started.communicate()
        return said.replace(self.port, "6379"), started.returncode

    def close(self) -> None:
        """End the processes of all sessions, such as those of a cluster."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = [process for process in _processes() if _session(process) in self._sessions]
            for process in left:
                with contextlib.suppress(OSError):
                    os.kill(process, number)
            if number == signal.SIGTERM and left:
                _wait_for_end(left)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _session(process: int) -> int:
    try:
        return os.getsid(process)
    except OSError:
        return -1


def _wait_for_end(processes: list[int]) -> None:
    for _ in range(50):
        if not any(Path(f"/proc/{process}").exists() for process in processes):
            return
        time.sleep(0.2)


def prepare(folder: Path) -> None:
    """Put the checkpoint and the corpus of the demo into a folder."""
    (folder / "checkpoint").symlink_to(DEMO / "unispeech-digits-ctc")
    (folder / "digits").mkdir()
    for number, shard in enumerate(sorted((DEMO / "audio").glob("*.parquet"))):
        (folder / "digits" / f"part-{number}.parquet").symlink_to(shard)


def made(tour: Tour, folder: Path, installed: Path | None = None) -> str:
    """Run the steps of a tour in a folder and return its page; `installed` as for `Shell`."""
    prepare(folder)
    (folder / ".home").mkdir()
    parts = [f"# {tour.title}", "Made by `make tour`; do not edit."]
    with tour.surroundings() as environment, contextlib.closing(Shell(folder, environment, installed)) as shell:
        for step in tour.steps:
            if isinstance(step, File):
                (folder / step.name).write_text(step.text)
                parts.append(f"`{step.name}`:\n\n```python\n{step.text}```")
            elif step.startswith("$ "):
                printed, exit_code = shell.run(step[2:])
                said = normalised(printed, folder, tour.varies)
                check(step, said, exit_code)
                code = f"[exit code {exit_code}]" if exit_code else ""
                parts.append("\n".join(line for line in ("```console", step, said, code, "```") if line))
            else:
                parts.append(step)
    return "\n\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Make the tours of these names, or all."""
    for name in names or TOURS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            (HERE / f"{name}.md").write_text(made(TOURS[name], Path(folder).resolve()))


if __name__ == "__main__":
    main(sys.argv[1:])
