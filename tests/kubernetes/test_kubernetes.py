import copy
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

import raysp
from raysp import Pipeline
from tests.kit import pipeline_in
from tests.kubernetes.manifests import KUBERNETES, Document, at, parent_of, pods, read, rendered, schema_faults
from tests.kubernetes.rules import amount, faults

CLOUDS = ("overlays/eks", "overlays/gke")
KEYED = ("overlays/on-premises", "overlays/aks", "overlays/kind")
"""Overlays whose nodes have the keys of a store."""
OVERLAYS = (*CLOUDS, *KEYED)
ON_CPUS = ("overlays/aks", "overlays/kind")
FOLDERS = ("job", "standing", *OVERLAYS)
WITHOUT_RAY = ("minio",)
OF_RAY = ("RayJob", "RayCluster")

DOCUMENTS = (
    ("job", "RayJob", "raysp-label"),
    ("standing", "RayCluster", "raysp"),
    ("standing", "Namespace", "raysp"),
    ("standing", "ServiceAccount", "raysp"),
    ("standing", "NetworkPolicy", "raysp"),
    ("standing", "NetworkPolicy", "raysp-redis"),
    ("standing", "PodDisruptionBudget", "raysp-head"),
    ("standing", "Service", "raysp-redis"),
    ("standing", "StatefulSet", "raysp-redis"),
    ("minio", "NetworkPolicy", "raysp-minio"),
    ("minio", "Service", "raysp-minio"),
    ("minio", "StatefulSet", "raysp-minio"),
)
"""All documents of a run: folder, kind and name."""
FREE = re.compile(
    "|".join(
        (
            "metadata(/name|/namespace)?",  # of the document: compared with the README and between documents
            "metadata/labels(/app.kubernetes.io~1part-of)?",  # for `kubectl get --selector`; those of pods are checked
            ".*/pod-security.kubernetes.io~1warn",  # prints what `enforce` refuses
            ".*/containers/0/name",  # Ray takes the first container, whatever its name
            ".*/resources/limits/cpu",  # without one the node is the limit
            ".*/upscalingMode",  # its value is the default
            ".*/fsGroupChangePolicy",  # saves time only
            ".*/readinessProbe/initialDelaySeconds",  # a node that is not ready is asked again
            ".*/readOnly",  # a config map is never written to
            "spec/template/spec/containers/0/\\w+Probe/periodSeconds",  # of Redis
            "spec/ports/0/name",  # of a service with one port
        )
    )
)
"""Fields that may be left out or have another value, each for its reason."""


def of_ray(folder: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] in OF_RAY]
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


def mutations(document: Document, pointer: str) -> dict[str, Document]:
    """Return copies of a document in which one field or item is removed, of another type, or a field is misspelt."""
    found = {}
    for name in ("removed", "of another type", "misspelt"):
        changed = copy.deepcopy(document)
        parent, key = parent_of(changed, pointer)
        value = parent.pop(key)
        other = ["another"] if isinstance(value, dict | str) else {"another": 1}
        if name == "of another type":
            parent.insert(key, other) if isinstance(parent, list) else parent.update({key: other})
        elif name == "misspelt" and isinstance(parent, dict):
            parent[key[:-1]] = value
        found[name] = changed
    return found


def fields(value: object, pointer: str = "") -> Iterator[str]:
    """Yield the JSON pointers of all fields and items of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        place = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}".removeprefix("/")
        yield place
        yield from fields(one, place)


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "kind", "name"), DOCUMENTS)
def test_a_field_that_is_removed_misspelt_or_of_another_type_is_found(folder, kind, name):
    (document,) = [
        one for one in rendered(KUBERNETES / folder) if (one["kind"], one["metadata"]["name"]) == (kind, name)
    ]
    assert faults(document) == []
    checked = [pointer for pointer in fields(document) if not FREE.fullmatch(pointer)]
    assert checked
    missed = [
        (pointer, how)
        for pointer in checked
        for how, changed in mutations(document, pointer).items()
        if not _either(changed)
    ]
    assert missed == []


def test_every_document_of_a_run_is_one_of_these():
    found = {
        (one["kind"], one["metadata"]["name"])
        for folder in ("job", "standing", *WITHOUT_RAY)
        for one in rendered(KUBERNETES / folder)
    }
    assert found == {(kind, name) for _, kind, name in DOCUMENTS}


def _either(document: Document) -> list[str]:
    found = faults(document)
    try:
        return found or [*schema_faults(document, pods_too=False)]
    except (KeyError, FileNotFoundError, TypeError, AttributeError) as error:  # of a kind that is unknown
        return [str(error)]


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


def test_a_field_of_a_kustomization_that_is_not_rendered_is_refused(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("namePrefix: a-\nresources: []\n")
    with pytest.raises(AssertionError, match="does not know"):
        rendered(tmp_path)


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


@pytest.mark.parametrize("folder", [*FOLDERS, *WITHOUT_RAY])
def test_no_document_holds_a_secret(folder):
    documents = rendered(KUBERNETES / folder)
    assert "Secret" not in {one["kind"] for one in documents}
    for one in documents:
        for _, pod in [*pods(one), *([("", one["spec"]["template"])] if one["kind"] == "StatefulSet" else [])]:
            for variable in pod["spec"]["containers"][0].get("env", []):
                if "PASSWORD" in variable["name"]:
                    assert at(variable, "valueFrom/secretKeyRef/name") in ("raysp-redis", "raysp-storage")


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_the_cluster_itself_the_operator_and_prometheus_reach_its_pods(folder):
    documents = rendered(KUBERNETES / folder)
    (policy,) = [one for one in documents if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "raysp"]
    assert faults(policy) == []
    (selected,) = policy["spec"]["podSelector"]["matchLabels"].items()
    for _, pod in pods(of_ray(folder)):
        assert selected in pod["metadata"]["labels"].items()


@pytest.mark.parametrize("folder", FOLDERS)
def test_upgrades_of_nodes_wait_for_the_head_alone(folder):
    (budget,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] == "PodDisruptionBudget"]
    labels = budget["spec"]["selector"]["matchLabels"].items()
    assert faults(budget) == []
    chosen = [name for name, pod in pods(of_ray(folder)) if labels <= pod["metadata"]["labels"].items()]
    assert chosen == ["head"]


def test_the_namespace_refuses_pods_that_are_not_confined():
    (namespace,) = [one for one in rendered(KUBERNETES / "job") if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
