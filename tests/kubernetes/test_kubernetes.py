"""The manifests of cluster/kubernetes: valid, with nodes that fit a run and its pipeline, and as the README says."""

import re
import subprocess

import pytest

import raysp
from tests.kit import pipeline_in
from tests.kubernetes.manifests import CLUSTER, CRDS, KUBERNETES, Document, pods, read, rendered, schema_faults
from tests.kubernetes.rules import amount, check_confined, check_nodes

KEYED = ("overlays/on-premises", "overlays/aks", "overlays/kind")
"""Overlays whose nodes have the keys of a store."""
OVERLAYS = ("overlays/eks", "overlays/gke", *KEYED)
ON_CPUS = ("overlays/aks", "overlays/kind")
SCRAPED = [8080, 44217, 44227]
README = (CLUSTER / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = "\n".join(BLOCKS).replace("\\\n", " ")


def of_ray(folder: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] in ("RayJob", "RayCluster")]
    return found


def document(folder: str, kind: str, name: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def standing_of(overlay: str) -> Document:
    """Return the cluster that stays up of an overlay."""
    documents = rendered(KUBERNETES / overlay, ["../../standing"])
    (cluster,) = [one for one in documents if one["kind"] == "RayCluster"]
    return cluster


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["job", "standing", *OVERLAYS, "minio"])
def test_documents_are_valid_for_kubernetes_and_kuberay_and_nodes_have_what_a_run_needs(folder):
    documents = rendered(KUBERNETES / folder)
    assert [fault for one in documents for fault in schema_faults(one)] == []
    assert "Secret" not in {one["kind"] for one in documents}
    for one in documents:
        assert one["metadata"].get("namespace") == (None if one["kind"] == "Namespace" else "raysp")
    if folder != "minio":
        check_nodes(of_ray(folder))
    if folder in OVERLAYS:
        check_nodes(standing_of(folder))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pipeline_of_an_overlay_fits_its_nodes_which_have_the_keys_that_it_names(overlay):
    groups = {one["groupName"]: one for one in of_ray(overlay)["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    pipeline = pipeline_in(KUBERNETES / overlay / "label.py")
    label, options = pipeline.label, pipeline.source.storage_options
    group = groups["decode" if overlay in ON_CPUS else "model"]
    [container] = group["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert label.pool.high <= group["maxReplicas"]
    if overlay in ON_CPUS:
        assert (label.device, label.pool.gpus or 0) == ("cpu", 0)
        assert label.pool.cpus < int(limits["cpu"]), "a node has a CPU for decoding beside an actor"
    else:
        assert label.pool.cpus <= int(group["rayStartParams"]["num-cpus"])
        assert label.pool.gpus <= int(limits["nvidia.com/gpu"])
        # What else would depend on a GPU, of which none is up when the run is planned.
        assert (label.device, label.dtype != "auto", label.batch_seconds is not None) == ("cuda", True, True)
    named = {one.name for one in options.values() if isinstance(one, raysp.Env)}
    assert (bool(named), pipeline.sink.storage_options) == (overlay in KEYED, options)
    if named:
        [created] = re.findall(r"create secret generic raysp-storage .*$", section(overlay), re.MULTILINE)
        assert {*re.findall(r"--from-literal (\w+)=", created)} == named
    for name, pod in pods(of_ray(overlay)):
        keys = [{"secretRef": {"name": "raysp-storage"}}] if named and name != "submitter" else []
        assert pod["spec"]["containers"][0].get("envFrom", []) == keys, name


def section(overlay: str) -> str:
    """Return the part of the README about an overlay, each command on a line."""
    parts = re.split("^## ", README.replace("\\\n", " "), flags=re.MULTILINE)
    (found,) = [one for one in parts if f"apply -k cluster/kubernetes/{overlay}" in one]
    return found


def test_pods_choose_the_pools_of_nodes_that_eks_starts_for_them():
    documents = read(KUBERNETES / "eks/node-pools.yaml")
    assert [fault for one in documents for fault in schema_faults(one)] == []
    pools = {one["metadata"]["name"]: one["spec"] for one in documents}
    for group in of_ray("overlays/eks")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        pool = pools[pod["nodeSelector"]["karpenter.sh/nodepool"]]
        tolerated = {(one["key"], one["effect"]) for one in pod["tolerations"] if one["operator"] == "Exists"}
        assert {(one["key"], one["effect"]) for one in pool["template"]["spec"]["taints"]} <= tolerated
        resource = "nvidia.com/gpu" if group["groupName"] == "model" else "cpu"
        needed = group["maxReplicas"] * amount(pod["containers"][0]["resources"]["limits"][resource])
        assert float(pool["limits"][resource]) >= needed


@pytest.mark.parametrize(
    ("folder", "name", "allowed"),
    [
        ("job", "raysp", [("part-of: raysp", []), ("name: kuberay-operator", [8265]), ("name: prometheus", SCRAPED)]),
        ("standing", "raysp-redis", [("part-of: raysp", [6379]), ("created-by: kuberay-operator", [6379])]),
        ("minio", "raysp-minio", [("part-of: raysp", [9000])]),
    ],
)
def test_only_the_cluster_itself_the_operator_and_prometheus_reach_its_pods(folder, name, allowed):
    spec = document(folder, "NetworkPolicy", name)["spec"]
    found = [
        (f"{key.removeprefix('app.kubernetes.io/')}: {value}", [port["port"] for port in rule.get("ports", [])])
        for rule in spec["ingress"]
        for source in rule["from"]
        for key, value in source["podSelector"]["matchLabels"].items()
    ]
    assert sorted(found) == sorted(allowed)
    if name == "raysp":
        chosen = [pod for _, pod in pods(of_ray(folder))]
    else:
        chosen = [document(folder, "StatefulSet", name)["spec"]["template"]]
        [container] = chosen[0]["spec"]["containers"]
        check_confined(container["securityContext"])
        assert chosen[0]["spec"]["securityContext"]["runAsNonRoot"] is True
    selected = spec["podSelector"]["matchLabels"].items()
    assert chosen
    assert all(selected <= pod["metadata"]["labels"].items() for pod in chosen)


def test_the_readme_names_files_that_exist_and_objects_of_the_manifests_in_commands_that_a_shell_can_read():
    named = set(re.findall(r"(?:file://|(?<![\w/-]))(cluster/[\w./-]*[\w-])", COMMANDS)) - {"cluster/"}
    in_text = re.findall(r"`((?:kubernetes|launcher|policies|monitoring)/[\w./-]*)`", README)
    assert min(len(named), len(in_text)) > 6
    assert [
        one for one in {*named, *(f"cluster/{one}" for one in in_text)} if not (CLUSTER.parent / one).exists()
    ] == []
    for block in BLOCKS:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    options = of_ray("standing")["spec"]["gcsFaultToleranceOptions"]
    secret = options["redisPassword"]["valueFrom"]["secretKeyRef"]
    assert f"create secret generic {secret['name']} --from-literal {secret['key']}=" in COMMANDS
    versions = set(re.findall(r"kuberay-operator --version (\S+)", COMMANDS))
    assert versions == set(re.findall(r"KubeRay ([\d.]+)", (CRDS / "README.md").read_text()))
