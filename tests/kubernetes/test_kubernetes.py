import re
import shutil
import subprocess

import pytest
import yaml

import raysp
from raysp import Pipeline
from tests.kit import pipeline_in
from tests.kubernetes.manifests import KUBERNETES, Document, pods, read, rendered, schema_faults
from tests.kubernetes.rules import amount, confined, faults

CLOUDS = ("overlays/eks", "overlays/gke")
KEYED = ("overlays/on-premises", "overlays/aks", "overlays/kind")
"""Overlays whose nodes have the keys of a store."""
OVERLAYS = (*CLOUDS, *KEYED)
ON_CPUS = ("overlays/aks", "overlays/kind")
FOLDERS = ("job", "standing", *OVERLAYS)
WITHOUT_RAY = ("minio",)
OF_RAY = ("RayJob", "RayCluster")
SCRAPED = [8080, 44217, 44227]


def of_ray(folder: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] in OF_RAY]
    return found


def document(folder: str, kind: str, name: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def standing_of(overlay: str) -> Document:
    """Return the cluster that stays up of an overlay."""
    documents = rendered(KUBERNETES / overlay, ["../../standing"])
    (cluster,) = [one for one in documents if one["kind"] == "RayCluster"]
    return cluster


def pipeline_of(overlay: str) -> Pipeline:
    return pipeline_in(KUBERNETES / overlay / "label.py")


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*FOLDERS, *WITHOUT_RAY])
def test_all_documents_are_valid_for_kubernetes_and_kuberay(folder):
    documents = rendered(KUBERNETES / folder)
    assert [fault for one in documents for fault in schema_faults(one)] == []
    assert "Secret" not in {one["kind"] for one in documents}
    for one in documents:
        assert one["metadata"].get("namespace") == (None if one["kind"] == "Namespace" else "raysp")


@pytest.mark.parametrize("folder", FOLDERS)
def test_nodes_have_what_a_run_needs(folder):
    assert faults(of_ray(folder)) == []


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [one for one in OVERLAYS if one != "overlays/kind"])
def test_an_overlay_also_makes_a_cluster_that_stays_up(overlay):
    cluster = standing_of(overlay)
    assert [*schema_faults(cluster), *faults(cluster)] == []
    assert cluster["spec"]["workerGroupSpecs"] == of_ray(overlay)["spec"]["rayClusterSpec"]["workerGroupSpecs"]


def test_a_job_and_a_standing_cluster_have_the_same_nodes():
    job, standing = of_ray("job")["spec"]["rayClusterSpec"], of_ray("standing")["spec"]
    del standing["gcsFaultToleranceOptions"]
    head = job["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [one for one in head["volumes"] if one["name"] != "pipeline"]
    mounts = head["containers"][0]["volumeMounts"]
    head["containers"][0]["volumeMounts"] = [one for one in mounts if one["name"] != "pipeline"]
    assert job == standing


@pytest.mark.parametrize("folder", [*FOLDERS, *WITHOUT_RAY, "../monitoring"])
def test_kubectl_renders_the_same(folder):
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("no kubectl, whose kustomize this would be compared with")
    printed = subprocess.run([kubectl, "kustomize", KUBERNETES / folder], capture_output=True, check=True, timeout=60)
    theirs = [*yaml.load_all(printed.stdout, yaml.CSafeLoader)]

    def order(document: Document) -> tuple[str, str]:
        return document["kind"], document["metadata"]["name"]

    assert sorted(rendered(KUBERNETES / folder), key=order) == sorted(theirs, key=order)


@pytest.mark.parametrize("overlay", [one for one in OVERLAYS if one not in ON_CPUS])
def test_the_pipeline_of_an_overlay_fits_its_nodes(overlay):
    spec = of_ray(overlay)["spec"]["rayClusterSpec"]
    (model,) = [one for one in spec["workerGroupSpecs"] if one["groupName"] == "model"]
    label = pipeline_of(overlay).label
    assert label.pool.high <= model["maxReplicas"]
    assert label.pool.cpus <= int(model["rayStartParams"]["num-cpus"])
    (container,) = model["template"]["spec"]["containers"]
    assert label.pool.gpus <= int(container["resources"]["limits"]["nvidia.com/gpu"])
    # What else would depend on a GPU, of which none is up when the run is planned.
    assert (label.device, label.dtype != "auto", label.batch_seconds is not None) == ("cuda", True, True)


@pytest.mark.parametrize("overlay", ON_CPUS)
def test_the_pipeline_of_an_overlay_without_gpus_fits_its_nodes(overlay):
    groups = {one["groupName"]: one for one in of_ray(overlay)["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    (container,) = groups["decode"]["template"]["spec"]["containers"]
    label = pipeline_of(overlay).label
    assert (label.device, label.pool.gpus or 0) == ("cpu", 0)
    # A node has a CPU for decoding beside an actor.
    assert label.pool.cpus < int(container["resources"]["limits"]["cpu"])
    assert label.pool.high <= groups["decode"]["maxReplicas"]


@pytest.mark.parametrize("overlay", KEYED)
def test_nodes_have_the_keys_that_the_pipeline_of_an_overlay_names(overlay):
    named = {one.name for one in pipeline_of(overlay).source.storage_options.values() if isinstance(one, raysp.Env)}
    (created,) = re.findall(
        r"^kubectl --namespace raysp create secret generic raysp-storage .*$", section(overlay), re.MULTILINE
    )
    assert set(re.findall(r"--from-literal (\w+)=", created)) == named
    assert pipeline_of(overlay).sink.storage_options == pipeline_of(overlay).source.storage_options
    for document in (of_ray(overlay), standing_of(overlay)):
        for name, pod in pods(document):
            keys = [] if name == "submitter" else [{"secretRef": {"name": "raysp-storage"}}]
            assert pod["spec"]["containers"][0].get("envFrom", []) == keys, name


def section(overlay: str) -> str:
    """Return the part of the README about an overlay, each command on a line."""
    text = (KUBERNETES.parent / "README.md").read_text().replace("\\\n", " ")
    (found,) = [
        one for one in re.split("^## ", text, flags=re.MULTILINE) if f"apply -k cluster/kubernetes/{overlay}" in one
    ]
    return found


@pytest.mark.parametrize("overlay", KEYED)
def test_the_first_labels_take_at_most_ten_commands(overlay):
    block = re.search(r"^```\n(.*?)^```$", section(overlay), re.MULTILINE | re.DOTALL)[1]
    commands = [line for line in block.splitlines() if line]
    assert 6 <= len(commands) <= 10
    assert not any("&& " in one or ";" in one for one in commands)
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section(overlay), re.MULTILINE)
    assert len(rows) > 5, "no table of the steps, their time and output"


@pytest.mark.parametrize("overlay", CLOUDS)
def test_the_account_of_an_overlay_is_bound_to_a_role_of_its_cloud(overlay):
    (account,) = [one for one in rendered(KUBERNETES / overlay) if one["kind"] == "ServiceAccount"]
    ((name, role),) = account["metadata"]["annotations"].items()
    if overlay.endswith("eks"):
        assert name == "eks.amazonaws.com/role-arn"
        assert role.startswith("arn:aws:iam::")
    else:
        assert name == "iam.gke.io/gcp-service-account"
        assert role.endswith(".iam.gserviceaccount.com")


def test_the_pools_of_nodes_are_valid_for_karpenter():
    pools = read(KUBERNETES / "eks/node-pools.yaml")
    assert [fault for one in pools for fault in schema_faults(one)] == []
    del pools[0]["spec"]["template"]["spec"]["nodeClassRef"]["kind"]
    pools[1]["spec"]["disruption"]["consolidationPolicy"] = "Never"
    assert all([*schema_faults(one)] for one in pools)


def test_pods_choose_the_pools_of_nodes_that_eks_starts_for_them():
    pools = {one["metadata"]["name"]: one["spec"] for one in read(KUBERNETES / "eks/node-pools.yaml")}
    groups = of_ray("overlays/eks")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    for group in groups:
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
    selected = spec["podSelector"]["matchLabels"].items()
    if name == "raysp":
        chosen = [pod for _, pod in pods(of_ray(folder))]
    else:
        chosen = [document(folder, "StatefulSet", name)["spec"]["template"]]
    assert chosen
    assert all(selected <= pod["metadata"]["labels"].items() for pod in chosen)


def test_upgrades_of_nodes_wait_for_the_head_alone():
    budget = document("standing", "PodDisruptionBudget", "raysp-head")["spec"]
    labels = budget["selector"]["matchLabels"].items()
    chosen = [name for name, pod in pods(of_ray("standing")) if labels <= pod["metadata"]["labels"].items()]
    assert (budget["minAvailable"], chosen) == (1, ["head"])


@pytest.mark.parametrize(("folder", "name"), [("standing", "raysp-redis"), ("minio", "raysp-minio")])
def test_a_store_of_the_cluster_is_confined_and_its_passwords_are_of_a_secret(folder, name):
    pod = document(folder, "StatefulSet", name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [*confined(name, container["securityContext"])] == []
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert all("secretKeyRef" in one["valueFrom"] for one in container["env"])
    if name == "raysp-redis":
        assert container["args"][-2:] == ["--requirepass", "$(REDIS_PASSWORD)"]


def test_the_namespace_refuses_pods_that_are_not_confined():
    labels = document("job", "Namespace", "raysp")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
