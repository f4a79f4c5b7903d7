"""The manifests of cluster/kubernetes, rendered as kustomize does, and checked against the schemas of their kinds."""

import copy
import functools
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from packaging.utils import canonicalize_name

CLUSTER = Path(__file__).parents[2] / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
CRDS = Path(__file__).parent / "crds"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""Versions of Kubernetes that manifests are checked for."""

CUSTOM = ("ray.io", "karpenter.sh", "monitoring.coreos.com")
"""Groups of the kinds that are not Kubernetes' own."""

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_task_oom_retries": "3",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment of the Ray that a run starts, as far as nodes of a cluster need it too; a test of a real Ray compares."""

Document = dict[str, Any]

SINK = "sink"
"""Label of all metrics of a run."""
METRICS = {
    "raysp_rows_total": ("counter", "status"),
    "raysp_audio_seconds_total": ("counter", ""),
    "raysp_errors_total": ("counter", "error_type"),
    "raysp_blocks_labelled_total": ("counter", ""),
    "raysp_shards_committed_total": ("counter", ""),
    "raysp_pieces_in_flight": ("gauge", ""),
    "raysp_rtfx": ("gauge", ""),
    "raysp_padding_efficiency": ("gauge", ""),
    "raysp_wait_share": ("gauge", ""),
    "raysp_batch_memory_bytes": ("gauge", ""),
}
"""Metrics of a run with their types and their labels beside `sink`; a test scrapes them from a node of Ray."""


def _pins() -> dict[str, str]:
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


PINS = _pins()
"""Versions of what the images install, by canonical name."""

KNOWN_FIELDS = {
    *["apiVersion", "kind", "namespace", "resources", "components", "images", "configMapGenerator", "patches"]
}
"""Fields of a kustomization that `rendered` knows. Others are refused, so that none is passed over."""


def read(file: Path) -> list[Document]:
    """Return the documents of a YAML file."""
    return [one for one in yaml.load_all(file.read_text(), yaml.CSafeLoader) if one]


def rendered(folder: Path, resources: list[str] | None = None) -> list[Document]:
    """Return what `kubectl kustomize` prints for a folder, in the order of its resources.

    Args:
        folder: contains a kustomization.
        resources: replace those of the kustomization.
    """
    (kustomization,) = read(folder / "kustomization.yaml")
    return _with(kustomization | ({"resources": resources} if resources else {}), folder, [])


def _with(kustomization: Document, folder: Path, before: list[Document]) -> list[Document]:
    assert set(kustomization) <= KNOWN_FIELDS, f"{folder}: fields that this renderer does not know"
    found = copy.deepcopy(before)
    for name in kustomization.get("resources", []):
        place = folder / name
        found += rendered(place) if place.is_dir() else copy.deepcopy(read(place))
    for name in kustomization.get("components", []):
        (component,) = read(folder / name / "kustomization.yaml")
        assert component["kind"] == "Component"
        found = _with(component, folder / name, found)
    found += [_config_map(generator, folder) for generator in kustomization.get("configMapGenerator", [])]
    for patch in kustomization.get("patches", []):
        for document in found:
            if _is_target(document, patch["target"]):
                for operation in yaml.safe_load(patch["patch"]):
                    apply(document, operation)
    for document in found:
        if "namespace" in kustomization and document["kind"] != "Namespace":
            document["metadata"]["namespace"] = kustomization["namespace"]
        for image in kustomization.get("images", []):
            _rename_images(document, image)
    return found


def _config_map(generator: Document, folder: Path) -> Document:
    options = dict(generator["options"])
    assert options.pop("disableNameSuffixHash"), "the volumes of a RayJob would not follow a name with a hash"
    data = {name: (folder / name).read_text() for name in generator["files"]}
    metadata = {"name": generator["name"], **options}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _is_target(document: Document, target: Document) -> bool:
    assert set(target) <= {"kind", "name"}
    return document["kind"] == target["kind"] and target.get("name") in (None, document["metadata"]["name"])


def _rename_images(value: Any, image: Document) -> None:
    if isinstance(value, list):
        for one in value:
            _rename_images(one, image)
    elif isinstance(value, dict):
        for container in [*value.get("containers", []), *value.get("initContainers", [])]:
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
        for one in value.values():
            _rename_images(one, image)


def apply(document: Document, operation: Document) -> None:
    """Apply one operation of a JSON patch (RFC 6902): add or replace, at a place whose parent exists."""
    parent, name = parent_of(document, operation["path"])
    assert operation["op"] in ("add", "replace")
    if operation["op"] == "replace" or isinstance(parent, list):
        assert parent[name] is not None
    parent[name] = copy.deepcopy(operation["value"])


def parent_of(document: Any, pointer: str) -> tuple[Any, Any]:
    """Return the object or list that a JSON pointer leads into, and the last name or index."""
    *names, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]
    for name in names:
        document = document[int(name) if isinstance(document, list) else name]
    return document, int(last) if isinstance(document, list) else last


def schema_faults(document: Document) -> Iterator[str]:
    """Check a document against the schema of its kind, in which unknown fields are faults, as `kubectl apply` has it.

    Pod templates of a RayJob or RayCluster are also checked as pods of Kubernetes.
    """
    if document["apiVersion"].partition("/")[0] in CUSTOM:
        errors = _crd(document["apiVersion"], document["kind"]).iter_errors(document)
        yield from (f"{error.json_path}: {error.message[:300]}" for error in errors)
        for where, pod in pods(document):
            as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod.get("spec")}
            yield from (f"{where}: {fault}" for fault in _of_kubernetes(as_pod))
    else:
        yield from _of_kubernetes(document)


def _of_kubernetes(document: Document) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {document['kind']}: {error.message}"


def pods(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the pod templates of a RayJob or RayCluster, with their places."""
    spec = document.get("spec", {})
    if "submitterPodTemplate" in spec:
        yield "submitter", spec["submitterPodTemplate"]
    spec = spec.get("rayClusterSpec", spec)
    groups = [spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", [])]
    for group in groups:
        if isinstance(group, dict) and isinstance(group.get("template"), dict):
            yield group.get("groupName", "head"), group["template"]


@functools.cache
def _crd(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    group, _, name = api_version.partition("/")
    file = CRDS / f"{group}_{kind.lower()}s.yaml.xz"
    definition = yaml.load(lzma.decompress(file.read_bytes()), yaml.CSafeLoader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == name]
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def _close(schema: Any) -> None:
    """Turn a structural schema of Kubernetes into one of JSON Schema, in which unknown fields are errors."""
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    elif isinstance(schema, dict):
        for one in schema.values():
            _close(one)
        if schema.pop("x-kubernetes-int-or-string", False):
            schema["type"] = ["integer", "string"]
        keeps = schema.get("x-kubernetes-preserve-unknown-fields", False) or "additionalProperties" in schema
        if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not keeps:
            schema["additionalProperties"] = False
