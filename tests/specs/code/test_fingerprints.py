"""Changes of a user's code that change a label: each gives another fingerprint, and a resume is refused by file."""

import importlib

import pytest

import raysp
from raysp import ChangedError
from tests.corpora import a_pipeline, write_shard

OUTPUT = """
from raysp import Transcript
from raysp.specs import spec
{imports}
@spec
class Shouted(Transcript):
    def op(self, checkpoint, loaded=None):
        return super().op(checkpoint, loaded){suffix}
"""


@pytest.mark.slow
def test_a_pipelines_own_output_is_compared_when_it_is_run_again(project, tmp_path):
    """Else one label shard would hold labels of two versions of it, and nothing would show."""
    project.write(my_output=OUTPUT.format(imports="import loudness", suffix=""), loudness="GAIN = 1\n")
    write_shard(tmp_path / "in" / "a.parquet", 2)
    outputs = [importlib.import_module("my_output").Shouted()]
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": outputs})
    raysp.run(pipeline, engine="here", progress=False)
    raysp.run(pipeline, engine="here", progress=False)
    project.write(loudness="GAIN = 2\n")
    with pytest.raises(ChangedError, match=r"another pipeline: the code in `loudness\.py` changed; undo the change"):
        raysp.run(pipeline, engine="here", progress=False)
    with pytest.raises(ChangedError, match=r"loudness\.py"):
        raysp.verify(str(tmp_path / "out"), sample=1, pipeline=pipeline)
