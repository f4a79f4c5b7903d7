"""Changes of a user's code that change a label: each gives another fingerprint, and a resume is refused by file."""

import importlib

import pytest

import raysp
from raysp import ChangedError
from tests.corpora import a_pipeline, write_shard
from tests.specs.code.projects import Project, hashed, keeping

RULE = "def wanted(table):\n    return [True] * table.num_rows\n"
OUTPUT = """
from raysp import Transcript
from raysp.specs import spec
{imports}
@spec
class Shouted(Transcript):
    def op(self, checkpoint, loaded=None):
        return super().op(checkpoint, loaded){suffix}
"""


def differing(project: Project, pipeline, before: dict[str, str], after: dict[str, str]) -> bool:
    """Return whether a change of files, seen by a new process, gives another fingerprint."""
    found = []
    for files in (before, {**before, **after}):
        project.write(**files)
        project.forget()
        found.append(hashed(pipeline()))
    return found[0] != found[1]


@pytest.mark.parametrize("changed", ["inner", "decorators", "names"])
def test_a_decorated_function_that_is_named_where_it_is_imported(project, changed):
    """The decorator, without `functools.wraps`, and what it wraps are in files that the named module imports."""
    before = {
        "decorators": "class Loud:\n    def __init__(self, function):\n        self.function = function\n"
        "    def __call__(self, table):\n        return self.function(table)\n",
        "inner": RULE,
        "names": "import decorators, inner\nwanted = decorators.Loud(inner.wanted)\n",
    }
    after = {changed: before[changed] + "# changed\n"}
    assert differing(project, lambda: keeping("names:wanted"), before, after)


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
