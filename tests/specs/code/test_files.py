"""Which files a user's code is."""

import sys

import pytest

from raysp import SpecError
from tests.specs.code.projects import Project, code_of

RULE = "\ndef wanted(table):\n    return [True] * table.num_rows\n"


FILES = {
    "near": "X = 1\n",
    "pack__": "NAME = 1\n",
    "pack__deep": "NAME = 2\n",
    "pack__other": "",
    "pack__sub__": "",
    "pack__sub__near": "X = 1\n",
    "space__part": "",
    "circle": "import round\n",
    "round": "import circle\n",
    "bad_syntax": "def (",
    "unused": "",
}


@pytest.mark.parametrize(
    ("module", "imports", "more"),
    [
        ("rules", "from pack import deep", ["pack/__init__.py", "pack/deep.py"]),
        ("rules", "from space import part", ["space/part.py"]),
        ("rules", "try:\n    import near\nexcept ImportError:\n    import pack", ["near.py", "pack/__init__.py"]),
        ("rules", "import circle", ["circle.py", "round.py"]),
        ("rules", "def f():\n    import bad_syntax", ["bad_syntax.py"]),
        ("rules", "import os, json, numpy, raysp\nfrom raysp import specs", []),
        ("pack__sub__rules", "from . import near", ["pack/sub/near.py"]),
        ("pack__sub__rules", "import near", ["near.py"]),
    ],
)
def test_modules_beside_it_that_a_file_imports(project, module, imports, more):
    project.write(**FILES, **{module: imports + RULE})
    packages = ["pack/__init__.py", "pack/sub/__init__.py"] if "__" in module else []
    found = code_of(f"{module.replace('__', '.')}:wanted")
    assert sorted(found) == sorted([*more, *packages, f"{module.replace('__', '/')}.py"])


def test_a_package_of_site_packages_counts_by_its_version_and_needs_one(project, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    Project(folder).write(acme__="", acme__rules=RULE)
    project.write(my_rules=f"import acme.rules{RULE}", theirs="from acme.rules import wanted\n")
    assert [*code_of("my_rules:wanted")] == ["my_rules.py"]  # a library
    with pytest.raises(
        SpecError, match=r"acme\.rules:wanted: the installed package 'acme' has no version; wrap its use"
    ):
        code_of("acme.rules:wanted")
    info = folder / "acme-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.5\n")
    (info / "top_level.txt").write_text("acme\n")
    (info / "RECORD").write_text("acme/__init__.py,,\n")
    assert code_of("acme.rules:wanted") == {"acme": "version acme 1.5"}
    assert {*code_of("theirs:wanted")} == {"theirs.py", "acme"}


class TestRefusals:
    def test_a_function_of_python(self):
        with pytest.raises(SpecError, match=r"is not in a Python file, so changes .* wrap it in a function"):
            code_of("builtins:reversed")  # of a table without rows it has none

    def test_a_module_named_like_one_of_pythons(self, project):
        project.write(json="X = 1\n", my_rules=f"import json{RULE}")
        with pytest.raises(SpecError, match=r"json\.py: there is a module of Python named 'json'.*; rename it"):
            code_of("my_rules:wanted")

    def test_another_module_of_that_name_is_loaded(self, project, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path / "before")
        Project(tmp_path / "before").write(near="X = 1\n")
        import near  # noqa: F401

        project.write(near="X = 2\n", my_rules=f"import near{RULE}")
        sys.path.remove(str(tmp_path / "before"))
        with pytest.raises(SpecError, match=r"project/near\.py: the module 'near' is imported from .*/before/near\.py"):
            code_of("my_rules:wanted")
