import copy
import shutil
import subprocess

import pytest
import yaml

from raysp.specs.pipeline import Pipeline, load_pipeline
from tests.cluster.manifests import KUBERNETES, Document, at, parent_of, pods, read, rendered, schema_faults
from tests.cluster.rules import amount, faults

OVERLAYS = ("overlays/eks", "overlays/gke")
FOLDERS = ("job", "standing", *OVERLAYS)
OF_RAY = ("RayJob", "RayCluster")

JOB = (
    "apiVersion",
    "kind",
    "spec/entrypoint",
    "spec/submissionMode",
    "spec/backoffLimit",
    "spec/activeDeadlineSeconds",
    "spec/shutdownAfterJobFinishes",
    "spec/ttlSecondsAfterFinished",
    "spec/submitterPodTemplate/spec/securityContext/runAsNonRoot",
    "spec/submitterPodTemplate/spec/containers/0/securityContext",
    "spec/submitterPodTemplate/spec/containers/0/image",
    "spec/rayClusterSpec",
)
"""Fields of the RayJob that a mutation of is a fault, as JSON pointers."""
STANDING = (
    "spec/gcsFaultToleranceOptions",
    "spec/gcsFaultToleranceOptions/redisAddress",
    "spec/gcsFaultToleranceOptions/redisPassword/valueFrom/secretKeyRef/name",
    "spec/gcsFaultToleranceOptions/redisPassword/valueFrom/secretKeyRef/key",
)
"""Fields of the RayCluster alone."""
CLUSTER = (
    "rayVersion",
    "authOptions",
    "authOptions/mode",
    "enableInTreeAutoscaling",
    "autoscalerOptions/version",
    "autoscalerOptions/idleTimeoutSeconds",
    "autoscalerOptions/securityContext/readOnlyRootFilesystem",
    "autoscalerOptions/volumeMounts",
    "autoscalerOptions/resources/limits/memory",
    "headGroupSpec",
    "headGroupSpec/rayStartParams/num-cpus",
    "headGroupSpec/rayStartParams/num-gpus",
    "headGroupSpec/rayStartParams/object-store-memory",
    "headGroupSpec/template/metadata/annotations/cluster-autoscaler.kubernetes.io~1safe-to-evict",
    "headGroupSpec/template/metadata/labels/app.kubernetes.io~1part-of",
    "headGroupSpec/template/spec/automountServiceAccountToken",
    "headGroupSpec/template/spec/serviceAccountName",
    "headGroupSpec/template/spec/restartPolicy",
    "headGroupSpec/template/spec/securityContext/runAsUser",
    "headGroupSpec/template/spec/securityContext/seccompProfile/type",
    "headGroupSpec/template/spec/containers/0/image",
    "headGroupSpec/template/spec/containers/0/ports",
    "headGroupSpec/template/spec/containers/0/env/0/name",
    "headGroupSpec/template/spec/containers/0/env/0/value",
    "headGroupSpec/template/spec/containers/0/livenessProbe/httpGet/port",
    "headGroupSpec/template/spec/containers/0/readinessProbe/httpGet/path",
    "workerGroupSpecs",
    "workerGroupSpecs/0/groupName",
    "workerGroupSpecs/0/minReplicas",
    "workerGroupSpecs/0/replicas",
    "workerGroupSpecs/0/maxReplicas",
    "workerGroupSpecs/0/labels",
    "workerGroupSpecs/0/rayStartParams/num-gpus",
    "workerGroupSpecs/0/rayStartParams/object-store-memory",
    "workerGroupSpecs/0/template/spec/automountServiceAccountToken",
    "workerGroupSpecs/0/template/spec/tolerations/0/key",
    "workerGroupSpecs/0/template/spec/tolerations/0/effect",
    "workerGroupSpecs/0/template/spec/terminationGracePeriodSeconds",
    "workerGroupSpecs/0/template/spec/containers/0/lifecycle/preStop/exec/command",
    "workerGroupSpecs/0/template/spec/containers/0/livenessProbe",
    "workerGroupSpecs/0/template/spec/containers/0/readinessProbe/periodSeconds",
    "workerGroupSpecs/0/template/spec/containers/0/securityContext/allowPrivilegeEscalation",
    "workerGroupSpecs/0/template/spec/containers/0/securityContext/capabilities/drop",
    "workerGroupSpecs/0/template/spec/containers/0/resources/requests/memory",
    "workerGroupSpecs/0/template/spec/containers/0/resources/limits/ephemeral-storage",
    "workerGroupSpecs/0/template/spec/containers/0/volumeMounts/0/mountPath",
    "workerGroupSpecs/0/template/spec/volumes/0/emptyDir/medium",
    "workerGroupSpecs/0/template/spec/volumes/0/emptyDir/sizeLimit",
    "workerGroupSpecs/0/template/spec/volumes/1/emptyDir/sizeLimit",
    "workerGroupSpecs/1/minReplicas",
    "workerGroupSpecs/1/rayStartParams/num-cpus",
    "workerGroupSpecs/1/template/spec/containers/0/resources/limits/nvidia.com~1gpu",
    "workerGroupSpecs/1/template/spec/containers/0/resources/requests/nvidia.com~1gpu",
    "workerGroupSpecs/1/template/spec/containers/0/lifecycle",
    "workerGroupSpecs/1/template/spec/tolerations/0/key",
    "workerGroupSpecs/1/template/spec/tolerations/0/operator",
    "workerGroupSpecs/1/template/spec/tolerations/1/key",
)
"""Fields of the cluster of both."""


def of_ray(folder: str) -> Document:
    (found,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] in OF_RAY]
    return found


def pipeline_of(overlay: str) -> Pipeline:
    return load_pipeline(str(KUBERNETES / overlay / "label.py"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_all_documents_are_valid_for_kubernetes_and_kuberay(folder):
    documents = rendered(KUBERNETES / folder)
    assert [fault for one in documents for fault in schema_faults(one)] == []
    for one in documents:
        assert one["metadata"].get("namespace") == (None if one["kind"] == "Namespace" else "raysp")


@pytest.mark.parametrize("folder", FOLDERS)
def test_nodes_have_what_a_run_needs(folder):
    assert faults(of_ray(folder)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_also_makes_a_cluster_that_stays_up(overlay):
    documents = rendered(KUBERNETES / overlay, ["../../standing"])
    (cluster,) = [one for one in documents if one["kind"] == "RayCluster"]
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
    """Return copies of a document in which one field is removed, has a value of another type, or is misspelt."""
    found = {}
    for name in ("removed", "of another type", "misspelt"):
        changed = copy.deepcopy(document)
        parent, key = parent_of(changed, pointer)
        value = parent.pop(key)
        if name == "of another type":
            parent[key] = ["another"] if isinstance(value, dict | str) else {"another": 1}
        elif name == "misspelt" and isinstance(parent, dict):
            parent[key[:-1]] = value
        found[name] = changed
    return found


@pytest.mark.parametrize(
    ("folder", "pointer"),
    [
        *(("job", one) for one in JOB),
        *(("standing", one) for one in STANDING),
        *(("job", f"spec/rayClusterSpec/{one}") for one in CLUSTER),
        *(("standing", f"spec/{one}") for one in CLUSTER),
    ],
)
def test_a_field_that_is_removed_misspelt_or_of_another_type_is_found(folder, pointer):
    for name, changed in mutations(of_ray(folder), pointer).items():
        assert next(iter(_either(changed)), None), name


def _either(document: Document) -> list[str]:
    found = faults(document)
    try:
        return found or [*schema_faults(document, pods_too=False)]
    except (KeyError, FileNotFoundError, TypeError, AttributeError) as error:  # of a kind that is unknown
        return [str(error)]


@pytest.mark.parametrize("folder", [*FOLDERS, "../monitoring"])
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


@pytest.mark.parametrize("overlay", OVERLAYS)
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


@pytest.mark.parametrize("overlay", OVERLAYS)
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


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_document_holds_a_secret(folder):
    documents = rendered(KUBERNETES / folder)
    assert "Secret" not in {one["kind"] for one in documents}
    for one in documents:
        for _, pod in [*pods(one), *([("", one["spec"]["template"])] if one["kind"] == "StatefulSet" else [])]:
            for variable in pod["spec"]["containers"][0].get("env", []):
                if "PASSWORD" in variable["name"]:
                    assert at(variable, "valueFrom/secretKeyRef/name") == "raysp-redis"


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_the_cluster_itself_the_operator_and_prometheus_reach_its_pods(folder):
    documents = rendered(KUBERNETES / folder)
    (policy,) = [one for one in documents if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "raysp"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (selected,) = policy["spec"]["podSelector"]["matchLabels"].items()
    for _, pod in pods(of_ray(folder)):
        assert selected in pod["metadata"]["labels"].items()
    sources = [(rule["from"], [port["port"] for port in rule.get("ports", [])]) for rule in policy["spec"]["ingress"]]
    assert sources == [
        ([{"podSelector": {"matchLabels": dict([selected])}}], []),
        ([_pods_named("kuberay-operator")], [8265]),
        ([_pods_named("prometheus")], [8080, 44217, 44227]),
    ]


def _pods_named(name: str) -> Document:
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}


@pytest.mark.parametrize("folder", FOLDERS)
def test_upgrades_of_nodes_wait_for_the_head_alone(folder):
    (budget,) = [one for one in rendered(KUBERNETES / folder) if one["kind"] == "PodDisruptionBudget"]
    labels = budget["spec"]["selector"]["matchLabels"].items()
    assert budget["spec"]["minAvailable"] == 1
    chosen = [name for name, pod in pods(of_ray(folder)) if labels <= pod["metadata"]["labels"].items()]
    assert chosen == ["head"]


def test_the_namespace_refuses_pods_that_are_not_confined():
    (namespace,) = [one for one in rendered(KUBERNETES / "job") if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
