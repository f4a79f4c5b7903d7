"""Which files a user's code is."""

import sys

import pytest

from raysp import SpecError
from raysp.specs.pipeline import read_code
from tests.corpora import a_pipeline
from tests.specs.code.projects import Project, code_of, names_of

RULE = "\ndef wanted(table):\n    return [True] * table.num_rows\n"


@pytest.mark.parametrize(
    ("imports", "more"),
    [
        ("from pack import deep", ["pack/__init__.py", "pack/deep.py"]),
        ("from pack import NAME", ["pack/__init__.py"]),
        ("from space import part", ["space/part.py"]),
        ("try:\n    import near\nexcept ImportError:\n    import pack", ["near.py", "pack/__init__.py"]),
        ("if False:\n    import near", ["near.py"]),
        ("import circle", ["circle.py", "round.py"]),
        ("def f():\n    import bad_syntax", ["bad_syntax.py"]),
        ("import os, json, numpy, raysp\nfrom raysp import specs", []),
        ("# import near", []),
    ],
)
def test_modules_beside_it_that_a_file_imports(project, imports, more):
    project.write(
        near="X = 1\n",
        pack__="NAME = 1\n",
        pack__deep="NAME = 2\n",
        pack__other="",
        space__part="",
        circle="import round\n",
        round="import circle\n",
        bad_syntax="def (",
        unused="",
        my_rules=imports + RULE,
    )
    assert names_of("my_rules:wanted") == sorted([*more, "my_rules.py"], key=lambda name: name.replace("/__init__", ""))


@pytest.mark.parametrize(
    ("imports", "more"),
    [
        ("from . import near", ["pack/near.py"]),
        ("from ..top import X", ["pack/top.py"]),
        ("from ..other.part import X", ["pack/other/__init__.py", "pack/other/part.py"]),
        ("import outside", ["outside.py"]),
    ],
)
def test_relative_imports_and_packages(project, imports, more):
    if "near" in imports:
        more = ["pack/sub/near.py"]
    project.write(
        pack__="X = 1\n",
        pack__top="X = 1\n",
        pack__sub__="",
        pack__sub__near="X = 1\n",
        pack__other__="",
        pack__other__part="X = 1\n",
        outside="",
        pack__sub__rules=imports + RULE,
    )
    expected = ["pack/__init__.py", "pack/sub/__init__.py", "pack/sub/rules.py", *more]
    assert sorted(names_of("pack.sub.rules:wanted")) == sorted(expected)


def test_a_pipeline_of_raysps_own_specs_has_no_code():
    """So the engine `here` reads ahead, and shows its live line."""
    assert not read_code(a_pipeline())


def test_a_package_of_site_packages_counts_by_its_version_and_needs_one(project, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    Project(folder).write(acme__="", acme__rules=RULE)
    project.write(my_rules=f"import acme.rules{RULE}", theirs="from acme.rules import wanted\n")
    assert names_of("my_rules:wanted") == ["my_rules.py"]  # a library
    with pytest.raises(
        SpecError, match=r"acme\.rules:wanted: the installed package 'acme' has no version; wrap its use"
    ):
        code_of("acme.rules:wanted")
    info = folder / "acme-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.5\n")
    (info / "top_level.txt").write_text("acme\n")
    (info / "RECORD").write_text("acme/__init__.py,,\n")
    assert code_of("acme.rules:wanted").parts() == {"code.acme": "version acme 1.5"}
    assert {*code_of("theirs:wanted").parts()} == {"code.theirs.py", "code.acme"}


class TestRefusals:
    @pytest.mark.parametrize("name", ["builtins:len", "operator:not_", "statistics:mean"])
    def test_a_function_of_python(self, name):
        with pytest.raises(SpecError, match=r"is not in a Python file, so changes .* wrap it in a function"):
            code_of(name)

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
