"""Make the tours beside this file: commands of several kinds of user, run one after the other, and what they print.

`make tour` runs it. What depends on the machine is replaced by "..." or a plain word, so that a tour changes only when
raysp does.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "pipelines" / "demo"

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
"""A file, or a command line of a shell."""

DATASETS = [
    "Recordings with their texts are a data set of `datasets`; `save_to_disk` writes it with the recordings in it.",
    File(
        "save.py",
        """\
import datasets

rows = datasets.load_dataset("parquet", data_files="digits/*.parquet", split="train")
rows.select(range(12)).save_to_disk("corpus")
""",
    ),
    "$ python save.py 2>/dev/null; ls corpus",
    "The folder is a source as it is. `plan` says what a run would do, and `--rows` tries it.",
    File("label.py", PIPELINE.format(source='"corpus", text="text"', outputs="raysp.Transcript()")),
    "$ raysp plan label.py",
    "$ raysp run label.py --rows 5",
    "`raysp run label.py` labels all rows into `labels`, which `datasets.load_dataset` reads.",
]

MODELS = [
    "The models work without a pipeline, with the names of `transformers`.",
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
    "The texts of a padded batch are those of each recording alone.",
    "$ python one.py",
    "$ raysp models",
]

SCEPTIC = [
    "What does it do to my files, and how do I know that the labels are right? `plan` writes nothing.",
    File("label.py", PIPELINE.format(source='"digits", text="text"', outputs="raysp.Transcript(words=True)")),
    "$ raysp plan label.py; ls",
    "Recordings that cannot be read do not pass for success.",
    "$ mkdir broken; for n in 1 2 3; do echo nonsense > broken/$n.wav; done",
    "$ raysp run label.py --set source.url=broken --set source.text=null --rows 3",
    "$ raysp plan label.py --set source.url=nowhere",
    "$ raysp plan label.py --set steps.1.windw_seconds=20",
    "Good rows are labelled, each with the times of its words.",
    "$ raysp run label.py --rows 3",
    "Nothing was kept so far.",
    "$ ls; raysp status labels",
    "After `raysp run label.py`, `raysp verify labels --sample 10` reads every label shard back and labels ten rows "
    "once more, each alone; the same `raysp run` again labels nothing twice.",
]

TOURS: dict[str, tuple[str, list[Step]]] = {
    "datasets": ("With `datasets`", DATASETS),
    "models": ("The models alone", MODELS),
    "sceptic": ("A sceptic", SCEPTIC),
}

REPLACED = [
    (r"\b\d+\.\d s: RTFx [\d,.]+", "... s: RTFx ..."),
    (r"RTFx [\d,.]+", "RTFx ..."),
    (r"ETA [\d:]+ · ", ""),
    (r"waited for input [\d.]+%", "waited for input ...%"),
    (r"model waited \d+%", "model waited ...%"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "2026-01-01T00:00:00+00:00"),
    (r"this machine has \d+ CPUs?", "this machine has ... CPUs"),
    (r"\d+ (to \d+ )?actors?[^,]*, \d+ CPUs?( \([^)]*\))? and", "1 actor, 1 CPU and"),
    (r"\b[\d,.]+ padded seconds a pass", "... padded seconds a pass"),
]


def normalised(text: str, folder: Path) -> str:
    """Return what a command printed without what differs between machines."""
    text = text.replace(f"{folder}/", "").replace(str(folder), "~")
    for pattern, put in REPLACED:
        text = re.sub(pattern, put, text)
    lines = (line.rstrip() for line in text.splitlines())
    # Plain lines of progress come by the clock.
    return "\n".join(line for line in lines if not re.match(r"raysp: \d+% · ", line))


def made(title: str, steps: list[Step], folder: Path) -> str:
    """Run the steps of a tour in a folder; returns its page."""
    (folder / "checkpoint").symlink_to(DEMO / "unispeech-digits-ctc")
    (folder / "digits").mkdir()
    for number, shard in enumerate(sorted((DEMO / "audio").glob("*.parquet"))):
        (folder / "digits" / f"part-{number}.parquet").symlink_to(shard)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(folder / ".state"),
        "COLUMNS": "100",
    }
    parts = [f"# {title}", "Made by `make tour`; do not edit."]
    for step in steps:
        if isinstance(step, File):
            (folder / step.name).write_text(step.text)
            parts.append(f"`{step.name}`:\n\n```python\n{step.text}```")
        elif step.startswith("$ "):
            ran = subprocess.run(
                ["bash", "-c", step[2:]], cwd=folder, env=environment, text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said = normalised(ran.stdout, folder)
            code = f"[exit code {ran.returncode}]" if ran.returncode else ""
            parts.append("\n".join(line for line in ("```console", step, said, code, "```") if line))
        else:
            parts.append(step)
    return "\n\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Make the tours of these names, or all."""
    for name in names or TOURS:
        title, steps = TOURS[name]
        with tempfile.TemporaryDirectory() as folder:
            (HERE / f"{name}.md").write_text(made(title, steps, Path(folder).resolve()))


if __name__ == "__main__":
    main(sys.argv[1:])
