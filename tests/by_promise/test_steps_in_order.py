"""Steps act with their own settings, in their order, and see the columns that they read."""

import numpy as np
import pyarrow as pa

import raysp
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, write_shard

OUTPUTS = (raysp.Transcript(), raysp.Signals())


def write_channels(folder, seconds: list[float], languages: list[str]) -> None:
    """Write recordings with silence in the first channel, and speech in the second, repeated for these seconds."""
    samples, rate = kit.soundfile.read(kit.io.BytesIO(kit.digits(1)[0]["audio"]), dtype="float32")
    audio = []
    for one in seconds:
        speech = np.resize(samples, round(one * rate))
        audio.append({"bytes": kit.sound(np.stack([np.zeros_like(speech), speech], 1), rate), "path": None})
    table = pa.table(
        {"id": [str(row) for row in range(len(seconds))], "audio": pa.array(audio, AUDIO), "language": languages}
    )
    write_shard(folder / "in" / "a.parquet", table=table)


def labelled(folder, *steps: object, outputs: tuple[object, ...] = OUTPUTS, sink: str = "out") -> list[dict]:
    pipeline = raysp.Pipeline(
        raysp.Shards(f"{folder}/in/*.parquet"),
        steps=[*steps, raysp.Label(str(CHECKPOINT), outputs=[*outputs])],
        sink=raysp.Parquet(f"{folder}/{sink}"),
    )
    raysp.run(pipeline, engine="here", progress=False)
    return kit.rows(folder / sink)


def test_filters_act_on_their_sides_of_decode_which_has_its_own_settings(tmp_path):
    write_channels(tmp_path, [0.5, 0.5, 0.1, 3.0], ["de", "en", "en", "en"])
    english, long_enough = raysp.Keep(where=[("language", "==", "en")]), raysp.Keep(min_seconds=0.3)
    found = labelled(tmp_path, english, raysp.Decode(channel=1, max_seconds=2), long_enough)
    assert [row["error_type"] for row in found] == ["filtered", None, "filtered", "too_long"]
    assert [row["seconds"] for row in found][:1] == [None]
    assert found[1]["signal"]["loudness"] > -60
    silent = labelled(tmp_path, english, raysp.Decode(channel=0, max_seconds=9), long_enough, sink="first")
    assert [row["error_type"] for row in silent][2:] == ["filtered", None]
    assert silent[3]["signal"]["loudness"] < found[1]["signal"]["loudness"] - 20
