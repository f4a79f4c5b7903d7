"""Rules for the pods of a run beyond the schemas: one function per concern, which yields the faults it finds."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raysp import __version__
from tests.kubernetes.manifests import PINS, Document

SPOT_TAINTS = {
    ("cloud.google.com/gke-spot", "Equal", "true"),
    ("kubernetes.azure.com/scalesetpriority", "Equal", "spot"),
    ("raysp.io/spot", "Exists", None),
}
"""Taints of spot nodes, as tolerated: key, operator and value."""
HEALTH = {"path": "/api/healthz", "port": 52365}
"""What the agent of each node of Ray answers without a token."""
WRITABLE = {"/dev/shm", "/tmp", "/home/raysp", "/var/cache/raysp"}
"""Folders that Ray and raysp write to; the rest of the file system is read-only."""
IMAGES = {"raysp-cpu", "raysp-cuda"}
UNITS = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}


def faults(document: Document) -> list[str]:
    """Return what is wrong with a RayJob or RayCluster of `cluster/kubernetes`."""
    spec = document["spec"]
    found = [*_job(spec)] if document["kind"] == "RayJob" else []
    cluster = spec.get("rayClusterSpec", spec)
    found += [*_cluster(cluster), *_head(cluster["headGroupSpec"])]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    if set(groups) != {"decode", "model"}:
        return [*found, f"worker groups: {sorted(groups)}"]
    workers = [fault for group in groups.values() for fault in _worker(group)]
    return [*found, *workers, *_decode(groups["decode"]), *_model(groups["model"])]


def _job(spec: Document) -> Iterator[str]:
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    command = re.fullmatch(r"raysp run (\S+)/(\w+\.py)", spec["entrypoint"])
    mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    maps = {one["name"]: one["configMap"]["name"] for one in head["volumes"] if "configMap" in one}
    if not command or maps.get(mounts.get(command[1])) != "raysp-pipeline":
        yield "entrypoint: runs no file of the config map raysp-pipeline"
    if spec["shutdownAfterJobFinishes"] is not True or spec["ttlSecondsAfterFinished"] <= 0:
        yield "the cluster stays up after the run"
    if spec["backoffLimit"] < 1:
        yield "backoffLimit: nothing resumes a run whose head was lost"
    if spec["activeDeadlineSeconds"] < 86400:
        yield "activeDeadlineSeconds: less than a day"
    submitter = spec["submitterPodTemplate"]["spec"]
    if submitter["automountServiceAccountToken"] is not False:
        yield "submitter: has a token of Kubernetes"
    yield from _pod("submitter", submitter, writable={"/tmp", "/home/raysp"})


def _cluster(spec: Document) -> Iterator[str]:
    if spec["rayVersion"] != PINS["ray"]:
        yield f"rayVersion: {spec['rayVersion']}, where the images have {PINS['ray']}"
    if spec["authOptions"]["mode"] != "token":
        yield "authOptions: anyone who reaches the cluster can run code on it"
    autoscaler = spec["autoscalerOptions"]
    if spec["enableInTreeAutoscaling"] is not True or autoscaler["version"] != "v2":
        yield "no autoscaler of version 2"
    yield from confined("autoscaler", autoscaler["securityContext"])


def _head(group: Document) -> Iterator[str]:
    params, pod = group["rayStartParams"], group["template"]["spec"]
    if (params["num-cpus"], params["num-gpus"]) != ("0", "0"):
        yield "head: work is scheduled there"
    if "tolerations" in pod:
        yield "head: it may start on a spot node"
    if pod["automountServiceAccountToken"] is not True:
        yield "head: the autoscaler cannot ask for pods"
    annotations = group["template"]["metadata"]["annotations"]
    evicted = annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "false"
    if evicted or annotations["karpenter.sh/do-not-disrupt"] != "true":
        yield "head: may be evicted"
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    if not 30 <= int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) < pod["terminationGracePeriodSeconds"]:
        yield "head: a stopped run has no time to end"
    yield from _ray_pod("head", pod, params)


def _worker(group: Document) -> Iterator[str]:
    name, pod = group["groupName"], group["template"]["spec"]
    if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
        yield f"{name}: replicas out of order"
    if pod["automountServiceAccountToken"] is not False:
        yield f"{name}: has a token of Kubernetes"
    tolerated = {(one["key"], one["operator"], one.get("value")) for one in pod["tolerations"]}
    if not tolerated >= SPOT_TAINTS:
        yield f"{name}: does not start on spot nodes"
    shell = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    drain = re.search(r"ray drain-node .*--deadline-remaining-seconds (\d+) && sleep (\d+)$", shell[2])
    if not drain or not int(drain[1]) == int(drain[2]) < pod["terminationGracePeriodSeconds"]:
        yield f"{name}: killed before it is drained"
    if "labels" in group["rayStartParams"] or "resources" in group["rayStartParams"]:
        yield f"{name}: KubeRay refuses these in rayStartParams"
    yield from _ray_pod(name, pod, group["rayStartParams"])


def _decode(group: Document) -> Iterator[str]:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    if "nvidia.com/gpu" in limits or group["rayStartParams"]["num-gpus"] != "0":
        yield "decode: takes a GPU"
    if group["minReplicas"] < 1:
        yield "decode: no node has a CPU for the first task"


def _model(group: Document) -> Iterator[str]:
    pod = group["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    if not resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1":
        yield "model: not one GPU"
    if ("nvidia.com/gpu", "Exists") not in {(one["key"], one["operator"]) for one in pod["tolerations"]}:
        yield "model: does not start on nodes with GPUs"
    if group["minReplicas"] != 0:
        yield "model: GPUs are paid for while nothing is labelled"
    if not 1 <= int(group["rayStartParams"]["num-cpus"]) <= 4:
        yield "model: offers its CPUs to decoding"


def _ray_pod(name: str, pod: Document, params: Mapping[str, str]) -> Iterator[str]:
    container = pod["containers"][0]
    for probe in ("readinessProbe", "livenessProbe"):
        if container[probe]["httpGet"] != HEALTH:
            yield f"{name}: {probe}"
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    shared = volumes[mounts["/dev/shm"]]["emptyDir"]
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    if shared["medium"] != "Memory":
        yield f"{name}: the object store is on a disk"
    if not int(params["object-store-memory"]) < amount(shared["sizeLimit"]) < amount(limits["memory"]) / 2:
        yield f"{name}: object store, shared memory and memory do not fit into each other"
    if limits["memory"] != requests["memory"]:
        yield f"{name}: its memory is not reserved"
    if pod["securityContext"]["fsGroup"] != pod["securityContext"]["runAsGroup"]:
        yield f"{name}: tokens of the cloud in its volumes are not readable"
    yield from _pod(name, pod, writable=WRITABLE)


def _pod(name: str, pod: Document, *, writable: set[str]) -> Iterator[str]:
    container = pod["containers"][0]
    if pod["serviceAccountName"] != "raysp":
        yield f"{name}: not the account that may read the corpus"
    if pod["restartPolicy"] != "Never":
        yield f"{name}: restartPolicy, which the autoscaler of version 2 refuses"
    context = pod["securityContext"]
    is_root = context["runAsNonRoot"] is not True or context["runAsUser"] < 1000 or context["runAsGroup"] < 1000
    if is_root or context["seccompProfile"]["type"] != "RuntimeDefault":
        yield f"{name}: securityContext of the pod"
    yield from confined(name, container["securityContext"])
    image, _, tag = container["image"].rpartition(":")
    if image.rpartition("/")[2] not in IMAGES or tag != __version__:
        yield f"{name}: image {container['image']}"
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    empty = {path: volume["emptyDir"] for path, volume in mounts.items() if "emptyDir" in volume}
    if not writable <= {path for path, folder in empty.items() if amount(folder["sizeLimit"]) > 0}:
        yield f"{name}: a folder is read-only that is written to"
    for one in container.get("env", []):
        if re.search("SECRET|PASSWORD|TOKEN|KEY", one["name"]) and "value" in one:
            yield f"{name}: {one['name']} in clear"


def confined(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    is_open = context["allowPrivilegeEscalation"] is not False or context["readOnlyRootFilesystem"] is not True
    if is_open or context["capabilities"] != {"drop": ["ALL"]}:
        yield f"{name}: securityContext of the container"


def amount(quantity: str) -> float:
    """Return the number that a quantity of Kubernetes stands for."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", quantity).groups()
    return float(number) * UNITS[unit]
