"""Rules for the documents of a run beyond the schemas: one function per concern, which yields the faults it finds."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysp import __version__
from tests.kubernetes.manifests import Document
from tests.kubernetes.pins import PINS

SPOT_TAINTS = {
    ("cloud.google.com/gke-spot", "Equal", "true"),
    ("kubernetes.azure.com/scalesetpriority", "Equal", "spot"),
    ("raysp.io/spot", "Exists", None),
}
"""Taints of spot nodes, as tolerated: key, operator and value."""
OF_RAYSP = {"app.kubernetes.io/part-of": "raysp"}
HEAD_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "as-metrics": 44217, "dash-metrics": 44227}
"""Ports by the names that KubeRay's service and Prometheus find them by."""
HEALTH = {"path": "/api/healthz", "port": 52365}
"""What the agent of each node of Ray answers without a token."""
WRITABLE = {"/dev/shm", "/tmp", "/home/raysp", "/var/cache/raysp"}
"""Folders that Ray and raysp write to; the rest of the file system is read-only."""
IMAGES = {"raysp-cpu", "raysp-cuda"}
UNITS = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}


def faults(document: Document) -> list[str]:
    """Return what is wrong with a document of `cluster/kubernetes`, of any kind but ConfigMap."""
    try:
        return [*RULES[document["kind"]](document)]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        return [f"{type(error).__name__}: {error}"]


def _of_ray(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if document["kind"] == "RayJob":
        yield from _job(spec)
        spec = spec["rayClusterSpec"]
    else:
        yield from _fault_tolerance(spec)
    yield from _cluster(spec)
    yield from _head(spec["headGroupSpec"])
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    if set(groups) != {"decode", "model"}:
        yield f"worker groups: {sorted(groups)}"
    for group in groups.values():
        yield from _worker(group)
    yield from _decode(groups["decode"])
    yield from _model(groups["model"])


def _job(spec: Document) -> Iterator[str]:
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    command = re.fullmatch(r"raysp run (\S+)/(\w+\.py)", spec["entrypoint"])
    mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    maps = {one["name"]: one["configMap"]["name"] for one in head["volumes"] if "configMap" in one}
    if not command or maps.get(mounts.get(command[1])) != "raysp-pipeline":
        yield "entrypoint: runs no file of the config map raysp-pipeline"
    if spec["submissionMode"] != "K8sJobMode":
        yield "submissionMode: no pod follows the log"
    if spec["shutdownAfterJobFinishes"] is not True or spec["ttlSecondsAfterFinished"] <= 0:
        yield "the cluster stays up after the run"
    if spec["backoffLimit"] < 1:
        yield "backoffLimit: nothing resumes a run whose head was lost"
    if spec["activeDeadlineSeconds"] < 86400:
        yield "activeDeadlineSeconds: less than a day"
    submitter = spec["submitterPodTemplate"]
    if submitter["metadata"]["labels"] != OF_RAYSP:
        yield "submitter: the network policy keeps it from the head"
    if submitter["spec"]["automountServiceAccountToken"] is not False:
        yield "submitter: has a token of Kubernetes"
    yield from _small("submitter", submitter["spec"]["containers"][0])
    yield from _pod("submitter", submitter["spec"], writable={"/tmp", "/home/raysp"})


def _fault_tolerance(spec: Document) -> Iterator[str]:
    options = spec["gcsFaultToleranceOptions"]
    if not re.fullmatch(r"[\w.-]+:\d+", options["redisAddress"]):
        yield "redisAddress: no host and port"
    reference = options["redisPassword"]["valueFrom"]["secretKeyRef"]
    if not reference["name"] or not reference["key"]:
        yield "redisPassword: no key of a secret"


def _cluster(spec: Document) -> Iterator[str]:
    if spec["rayVersion"] != PINS["ray"]:
        yield f"rayVersion: {spec['rayVersion']}, where the images have {PINS['ray']}"
    if spec["authOptions"]["mode"] != "token":
        yield "authOptions: anyone who reaches the cluster can run code on it"
    autoscaler = spec["autoscalerOptions"]
    if spec["enableInTreeAutoscaling"] is not True or autoscaler["version"] != "v2":
        yield "no autoscaler of version 2"
    if not 60 <= autoscaler["idleTimeoutSeconds"] <= 3600:
        yield "idleTimeoutSeconds: not between a minute and an hour"
    yield from _confined("autoscaler", autoscaler["securityContext"])
    volumes = {one["name"] for one in spec["headGroupSpec"]["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"] for mount in autoscaler["volumeMounts"] if mount["name"] in volumes}
    if not WRITABLE & mounts >= {"/tmp", "/home/raysp"}:
        yield "autoscaler: /tmp or the home folder is read-only"
    if amount(autoscaler["resources"]["requests"]["cpu"]) > 1:
        yield "autoscaler: resources"
    if autoscaler["resources"]["limits"]["memory"] != autoscaler["resources"]["requests"]["memory"]:
        yield "autoscaler: its memory is not reserved"


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
    if group["template"]["metadata"]["labels"]["raysp.io/group"] != "head":
        yield "head: no disruption budget selects it"
    ports = {one["name"]: one["containerPort"] for one in pod["containers"][0]["ports"]}
    if not HEAD_PORTS.items() <= ports.items():
        yield "head: ports"
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    if not 30 <= int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) < pod["terminationGracePeriodSeconds"]:
        yield "head: a stopped run has no time to end"
    yield from _ray_pod("head", pod, params, group["template"]["metadata"]["labels"])


def _worker(group: Document) -> Iterator[str]:
    name, pod = group["groupName"], group["template"]["spec"]
    labels = {**group["template"]["metadata"]["labels"], **group["labels"]}
    if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
        yield f"{name}: replicas out of order"
    if labels["raysp.io/group"] != name:
        yield f"{name}: labelled {labels['raysp.io/group']}"
    if pod["automountServiceAccountToken"] is not False:
        yield f"{name}: has a token of Kubernetes"
    tolerated = {(one["key"], one["operator"], one.get("value")) for one in _of_scheduling(pod["tolerations"])}
    if not tolerated >= SPOT_TAINTS:
        yield f"{name}: does not start on spot nodes"
    shell = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    drain = re.search(r"ray drain-node .*--deadline-remaining-seconds (\d+) && sleep (\d+)$", shell[2])
    if not drain or shell[:2] != ["/bin/bash", "-c"]:
        yield f"{name}: is not drained"
    elif not int(drain[1]) == int(drain[2]) < pod["terminationGracePeriodSeconds"]:
        yield f"{name}: killed before it is drained"
    if "labels" in group["rayStartParams"] or "resources" in group["rayStartParams"]:
        yield f"{name}: KubeRay refuses these in rayStartParams"
    yield from _ray_pod(name, pod, group["rayStartParams"], labels)


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
    tolerated = {(one["key"], one["operator"]) for one in _of_scheduling(pod["tolerations"])}
    if ("nvidia.com/gpu", "Exists") not in tolerated:
        yield "model: does not start on nodes with GPUs"
    if group["minReplicas"] != 0:
        yield "model: GPUs are paid for while nothing is labelled"
    if not 1 <= int(group["rayStartParams"]["num-cpus"]) <= 4:
        yield "model: offers its CPUs to decoding"


def _of_scheduling(tolerations: list[Document]) -> list[Document]:
    return [one for one in tolerations if one["effect"] == "NoSchedule"]


def _ray_pod(name: str, pod: Document, params: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
    container = pod["containers"][0]
    if labels["app.kubernetes.io/part-of"] != "raysp":
        yield f"{name}: the network policy does not reach it"
    for probe in ("readinessProbe", "livenessProbe"):
        found = container[probe]
        patience = found["periodSeconds"] * found["failureThreshold"]
        if found["httpGet"] != HEALTH or patience < 60 or found["timeoutSeconds"] < 5:
            yield f"{name}: {probe}"
        if probe == "livenessProbe" and found["initialDelaySeconds"] < 30:
            yield f"{name}: may be killed while it starts"
    if {"name": "metrics", "containerPort": 8080} not in container["ports"]:
        yield f"{name}: Prometheus finds no port"
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
    if amount(requests["cpu"]) < 1 or amount(requests["ephemeral-storage"]) > amount(limits["ephemeral-storage"]):
        yield f"{name}: resources"
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
    yield from _confined(name, container["securityContext"])
    image, _, tag = container["image"].rpartition(":")
    if image.rpartition("/")[2] not in IMAGES or tag != __version__:
        yield f"{name}: image {container['image']}"
    if container["imagePullPolicy"] != "IfNotPresent":
        yield f"{name}: imagePullPolicy"
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    empty = {path: volume["emptyDir"] for path, volume in mounts.items() if "emptyDir" in volume}
    if not writable <= {path for path, folder in empty.items() if amount(folder["sizeLimit"]) > 0}:
        yield f"{name}: a folder is read-only that is written to"
    for one in container.get("env", []):
        if re.search("SECRET|PASSWORD|TOKEN|KEY", one["name"]) and "value" in one:
            yield f"{name}: {one['name']} in clear"


def _confined(name: str, context: Mapping[str, Any]) -> Iterator[str]:
    is_open = context["allowPrivilegeEscalation"] is not False or context["readOnlyRootFilesystem"] is not True
    if is_open or context["capabilities"] != {"drop": ["ALL"]}:
        yield f"{name}: securityContext of the container"


def _small(name: str, container: Document) -> Iterator[str]:
    """Check the resources of a container that does no work of a run."""
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    if amount(requests["cpu"]) > 1 or not 2**28 <= amount(requests["memory"]) <= amount(limits["memory"]):
        yield f"{name}: resources"


def amount(quantity: str) -> float:
    """Return the number that a quantity of Kubernetes stands for."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", quantity).groups()
    return float(number) * UNITS[unit]


def _namespace(document: Document) -> Iterator[str]:
    if document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] != "restricted":
        yield "namespace: takes pods that are not confined"


def _account(document: Document) -> Iterator[str]:
    if document["automountServiceAccountToken"] is not False:
        yield "account: every pod has a token of Kubernetes"


def _network_policy(document: Document) -> Iterator[str]:
    spec, store = document["spec"], STORES.get(document["metadata"]["name"])
    if store:
        expected = [([one for labels in store.clients for one in _pods(labels)], [store.port])]
    else:
        expected = [(_pods(OF_RAYSP), []), *_FROM_OUTSIDE]
    if [(rule["from"], _ports(rule)) for rule in spec["ingress"]] != expected:
        yield "network policy: who reaches the pods"
    if spec["podSelector"]["matchLabels"] != (store.labels if store else OF_RAYSP):
        yield "network policy: selects other pods"
    if spec["policyTypes"] != (["Ingress", "Egress"] if store else ["Ingress"]) or "egress" in spec:
        yield "network policy: directions"


def _pods(labels: Document, **namespace: Document) -> list[Document]:
    return [{**namespace, "podSelector": {"matchLabels": labels}}]


def _ports(rule: Document) -> list[int]:
    return [one["port"] for one in rule.get("ports", []) if one["protocol"] == "TCP"]


@dataclass(frozen=True)
class Store:
    """A server that keeps what nodes of a run share: its name, port and user, and how it starts."""

    name: str
    port_name: str
    port: int
    user: int
    image: str
    starts: Mapping[str, list[str]]
    secrets: Mapping[str, Mapping[str, str]]
    mounts: Mapping[str, str]
    clients: tuple[Mapping[str, str], ...]

    @property
    def labels(self) -> Mapping[str, str]:
        return {"app.kubernetes.io/name": self.name}


STORES = {
    one.name: one
    for one in (
        Store(
            "raysp-redis",
            "redis",
            6379,
            999,
            r"redis:\d+\.\d+\.\d+-\w+",
            {"args": ["--appendonly", "yes", "--requirepass", "$(REDIS_PASSWORD)"]},
            {"REDIS_PASSWORD": {"name": "raysp-redis", "key": "password"}},
            {"data": "/data"},
            (OF_RAYSP, {"app.kubernetes.io/created-by": "kuberay-operator"}),
        ),
        Store(
            "raysp-minio",
            "s3",
            9000,
            1000,
            r"minio/minio:RELEASE\.\S+",
            {
                "command": [
                    "sh",
                    "-c",
                    "mkdir -p /data/my-corpus /data/my-labels && exec minio server /data --certs-dir /tmp/certs",
                ]
            },
            {
                "MINIO_ROOT_USER": {"name": "raysp-storage", "key": "STORAGE_KEY"},
                "MINIO_ROOT_PASSWORD": {"name": "raysp-storage", "key": "STORAGE_SECRET"},
            },
            {"data": "/data", "tmp": "/tmp"},
            (OF_RAYSP,),
        ),
    )
}
_FROM_OUTSIDE = [
    (_pods({"app.kubernetes.io/name": name}, namespaceSelector={}), ports)
    for name, ports in (("kuberay-operator", [8265]), ("prometheus", [8080, 44217, 44227]))
]
"""Who reaches the pods of Ray beside themselves, and at which ports."""


def _budget(document: Document) -> Iterator[str]:
    spec = document["spec"]
    if (spec["minAvailable"], spec["selector"]["matchLabels"]) != (1, {**OF_RAYSP, "raysp.io/group": "head"}):
        yield "disruption budget: does not hold the head"


def _service(document: Document) -> Iterator[str]:
    (port,), store = document["spec"]["ports"], STORES[document["metadata"]["name"]]
    if document["spec"]["selector"] != store.labels or (port["port"], port["targetPort"]) != (
        store.port,
        store.port_name,
    ):
        yield "service: leads elsewhere"


def _stateful(document: Document) -> Iterator[str]:
    store, spec, template = STORES[document["metadata"]["name"]], document["spec"], document["spec"]["template"]
    pod = template["spec"]
    (container,), (claim,) = pod["containers"], spec["volumeClaimTemplates"]
    if not spec["selector"]["matchLabels"] == template["metadata"]["labels"] == store.labels:
        yield f"{store.name}: labels"
    if (spec["serviceName"], spec["replicas"]) != (store.name, 1):
        yield f"{store.name}: not one behind its service"
    context = pod["securityContext"]
    users = {context["runAsUser"], context["runAsGroup"], context["fsGroup"]}
    is_root = context["runAsNonRoot"] is not True or users != {store.user}
    if is_root or context["seccompProfile"]["type"] != "RuntimeDefault":
        yield f"{store.name}: securityContext of the pod"
    if pod["automountServiceAccountToken"] is not False:
        yield f"{store.name}: has a token of Kubernetes"
    yield from _confined(store.name, container["securityContext"])
    if {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"]} != store.secrets:
        yield f"{store.name}: passwords"
    if any(container.get(name) != store.starts.get(name) for name in ("command", "args")):
        yield f"{store.name}: keeps nothing, or answers anyone"
    if container["ports"] != [{"name": store.port_name, "containerPort": store.port}]:
        yield f"{store.name}: port"
    if any(container[probe]["tcpSocket"]["port"] != store.port_name for probe in ("readinessProbe", "livenessProbe")):
        yield f"{store.name}: probes"
    if container["livenessProbe"]["initialDelaySeconds"] < 10:
        yield f"{store.name}: may be killed while it starts"
    yield from _small(store.name, container)
    if not re.fullmatch(store.image, container["image"]):
        yield f"{store.name}: image"
    empty = {one["name"] for one in pod.get("volumes", []) if amount(one["emptyDir"]["sizeLimit"]) > 0}
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    if mounted != store.mounts or {claim["metadata"]["name"], *empty} != set(mounted):
        yield f"{store.name}: its volumes"
    gigabytes = amount(claim["spec"]["resources"]["requests"]["storage"])
    if claim["spec"]["accessModes"] != ["ReadWriteOnce"] or gigabytes < 1:
        yield f"{store.name}: volume"


RULES = {
    "RayJob": _of_ray,
    "RayCluster": _of_ray,
    "Namespace": _namespace,
    "ServiceAccount": _account,
    "NetworkPolicy": _network_policy,
    "PodDisruptionBudget": _budget,
    "Service": _service,
    "StatefulSet": _stateful,
}
"""By kind."""
