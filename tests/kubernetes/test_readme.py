"""The README of cluster/ names what exists."""

import json
import re
import subprocess

import pytest
import yaml

from tests.corpora import CHECKPOINT, DEMO
from tests.kit import run
from tests.kubernetes.manifests import CLUSTER, CRDS, KUBERNETES, rendered

ROOT = CLUSTER.parent
TEXT = (CLUSTER / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = "\n".join(BLOCKS).replace("\\\n", " ")


def test_every_file_that_it_names_exists():
    in_commands = set(re.findall(r"(?:file://|(?<![\w/-]))(cluster/[\w./-]*[\w-])", COMMANDS)) - {"cluster/"}
    in_text = set(re.findall(r"`((?:kubernetes|launcher|policies|monitoring)/[\w./-]*)`", TEXT))
    assert len(in_commands) > 10
    assert len(in_text) > 6
    missing = [one for one in in_commands if not (ROOT / one).exists()]
    missing += [one for one in in_text if not (CLUSTER / one).exists()]
    assert missing == []


def test_every_file_of_the_folder_is_named_or_is_in_one_that_is():
    for path in CLUSTER.iterdir():
        if path.name not in ("README.md", "Dockerfile.dockerignore", "__pycache__"):
            assert f"`{path.name}" in TEXT, path
    for folder in ("policies", "launcher", "monitoring"):
        for path in (CLUSTER / folder).iterdir():
            assert path.name in TEXT or path.name in ("kustomization.yaml", "pod-monitor.yaml"), path


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, heading = target.partition("#")
        text = (CLUSTER / file).read_text() if heading and file else TEXT
        headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
        assert (CLUSTER / file).exists(), target
        assert not heading or heading in headings, target


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_commands_are_ones_that_a_shell_can_read(number):
    subprocess.run(["bash", "-n"], input=BLOCKS[number], text=True, check=True)


def test_names_are_those_of_the_manifests():
    documents = [one for folder in ("job", "standing") for one in rendered(KUBERNETES / folder)]
    names = {one["kind"]: one["metadata"]["name"] for one in documents}
    assert f"get rayjob {names['RayJob']}" in COMMANDS
    assert f"service/{names['RayCluster']}-head-svc" in COMMANDS
    assert f"get secret {names['RayCluster']} " in COMMANDS
    namespaces = set(re.findall(r"--namespace ([\w-]+)", COMMANDS))
    assert namespaces == {names["Namespace"], "kuberay-system", "monitoring"}
    (cluster,) = [one for one in documents if one["kind"] == "RayCluster"]
    secret = cluster["spec"]["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert f"create secret generic {secret['name']} --from-literal {secret['key']}=" in COMMANDS


def test_the_operator_is_the_one_that_manifests_are_checked_for():
    versions = set(re.findall(r"kuberay-operator --version (\S+)", COMMANDS))
    assert versions == set(re.findall(r"KubeRay ([\d.]+)", (CRDS / "README.md").read_text()))


def test_pools_of_gke_have_the_labels_that_pods_choose():
    pools = dict(re.findall(r"node-pools create (\w+) .*?--node-labels raysp.io/pool=(\w+)", COMMANDS))
    (job,) = [one for one in rendered(KUBERNETES / "overlays/gke") if one["kind"] == "RayJob"]
    spec = job["spec"]["rayClusterSpec"]
    chosen = {"head": spec["headGroupSpec"], **{one["groupName"]: one for one in spec["workerGroupSpecs"]}}
    assert pools == {name: group["template"]["spec"]["nodeSelector"]["raysp.io/pool"] for name, group in chosen.items()}


def test_the_settings_of_the_try_out_fit_the_pipeline(tmp_path):
    settings = re.findall(r"--set (\S+)", next(line for line in COMMANDS.splitlines() if "--rows" in line))
    places = {"source.url": f"{DEMO}/audio/*.parquet", "steps.1.checkpoint": CHECKPOINT, "sink.url": tmp_path / "out"}
    changes = [*settings, *(f"{name}={value}" for name, value in places.items())]
    file = KUBERNETES / "overlays/eks/label.py"
    ran = run(["plan", file, "--sample", 0, "--json", *(f"--set={one}" for one in changes)])
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["settings"]
    assert (found["device"], found["gpus_per_actor"], found["dtype"]) == ("cpu", 0, "float32")


def test_the_version_of_python_is_stated_once():
    (patch,) = set(re.findall(r"python:(3\.\d+\.\d+)-slim", (CLUSTER / "Dockerfile").read_text()))
    minor = patch.rpartition(".")[0]
    assert f"`python:{minor}-slim`" in TEXT
    for cloud in ("aws", "gcp"):
        (line,) = [
            one
            for one in yaml.safe_load((CLUSTER / "launcher" / f"{cloud}.yaml").read_text())["setup_commands"]
            if "uv venv" in one
        ]
        assert f"--python {patch} " in line
