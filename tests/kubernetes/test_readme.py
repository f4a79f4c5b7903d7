"""The README of cluster/ names what exists."""

import re
import subprocess

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


def test_commands_are_ones_that_a_shell_can_read_for_the_operator_that_manifests_are_checked_for():
    for block in BLOCKS:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    versions = set(re.findall(r"kuberay-operator --version (\S+)", COMMANDS))
    assert versions == set(re.findall(r"KubeRay ([\d.]+)", (CRDS / "README.md").read_text()))
