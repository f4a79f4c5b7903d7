import copy
import inspect
import json
import re
from collections.abc import Iterator

import yaml
from prometheus_client import CollectorRegistry
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels
from ray.dashboard.modules.reporter import reporter_agent

from tests.kubernetes.manifests import (
    CLUSTER,
    KUBERNETES,
    METRICS,
    SINK,
    Document,
    at,
    pods,
    read,
    rendered,
    schema_faults,
)

MONITORING = CLUSTER / "monitoring"
OPERATIONS = (CLUSTER.parent / "docs/reference/columns.md").read_text()
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())

RAYSP_METRICS = {name: {SINK, *filter(None, [label])} for name, (_, label) in METRICS.items()}
"""Metrics of a run with their labels; Ray exports them with the prefix `ray_`."""
OF_THE_SCRAPE = {"ip", "SessionName", "ray_io_cluster", "ray_io_group", "ray_io_node_type"}
OF_RAY = {"State", "Location", "GpuIndex", "NodeType"}
WORDS = {"by", "sum", "avg", "max", "min", "count", "rate", "increase"}
"""Functions and words of PromQL that the dashboard uses."""
FIXED_PORTS = {"metrics", "as-metrics", "dash-metrics"}


def rays_own() -> set[str]:
    """Return the metrics that the installed Ray exports, by what it exports them with and its own dashboard."""
    gauges = {f"ray_{name}" for name in reporter_agent.METRICS_GAUGES}
    autoscaler = AutoscalerPrometheusMetrics("session", CollectorRegistry())
    nodes = {metric.name for metric in autoscaler.registry.collect()}
    dashboard = set(re.findall(r"\bray_[a-z0-9_]+", inspect.getsource(default_dashboard_panels)))
    return gauges | nodes | dashboard


def expressions(dashboard: Document) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[1]


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that an expression of PromQL names."""
    text = re.sub(r'"[^"]*"', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", text))
    labels |= {one.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for one in group.split(",")}
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", text)
    return set(re.findall(r"[a-zA-Z_]\w*", text)) - WORDS, labels


def dashboard_faults(dashboard: Document, known: set[str]) -> list[str]:
    found = []
    for expression in expressions(dashboard):
        metrics, labels = names_in(expression)
        found += [f"{name}: no metric of raysp or Ray" for name in metrics - known]
        mine = set().union(*(RAYSP_METRICS.get(name.removeprefix("ray_"), set()) for name in metrics))
        allowed = OF_THE_SCRAPE | (mine if any("raysp" in name for name in metrics) else OF_RAY)
        found += [f"{label}: no label of {metrics}" for label in labels - allowed]
        found += [f"brackets: {expression}"] if expression.count("(") != expression.count(")") else []
    return found


def test_every_panel_uses_metrics_of_raysp_and_of_ray_that_exist():
    known = rays_own() | {f"ray_{name}" for name in RAYSP_METRICS}
    assert len(rays_own()) > 50
    assert dashboard_faults(DASHBOARD, known) == []


def test_every_metric_of_a_run_is_shown():
    shown = set().union(*(names_in(expression)[0] for expression in expressions(DASHBOARD)))
    assert {f"ray_{name}" for name in RAYSP_METRICS} <= shown


def test_the_document_for_operators_has_every_metric_with_its_type_and_label():
    rows = re.findall(r"^\| `(raysp_\w+)(?:\{(\w+)\})?` \| (\w+) \|", OPERATIONS, re.MULTILINE)
    assert sorted(rows) == sorted((name, label, kind) for name, (kind, label) in METRICS.items())


def test_alerts_of_the_document_name_metrics_that_exist():
    (alerts,) = re.findall(r"^```\n(# A run has work.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    expressions = [line for line in alerts.splitlines() if not line.startswith("#")]
    assert len(expressions) == 3
    for expression in expressions:
        metrics, labels = names_in(expression)
        assert metrics - {"unless"} <= {f"ray_{name}" for name in RAYSP_METRICS}
        assert labels <= {SINK, "status"}


def test_grafana_can_show_the_panels():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["fieldConfig"]["defaults"]["unit"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "cluster", "sink"}


def kept(config: Document, document: Document) -> set[tuple[str, str]]:
    """Return the pods and ports of a RayJob that a scrape configuration keeps, as Prometheus relabels them."""
    found = set()
    for name, pod in pods(document):
        group = next(
            (one for one in at(document, "spec/rayClusterSpec/workerGroupSpecs") if one["groupName"] == name), {}
        )
        labels = {**pod["metadata"].get("labels", {}), **group.get("labels", {})}
        meta = {f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": labels[key] for key in labels}
        for port in pod["spec"]["containers"][0].get("ports", []):
            meta["__meta_kubernetes_pod_container_port_name"] = port["name"]
            keeps = [one for one in config["relabel_configs"] if one.get("action") == "keep"]
            if all(re.fullmatch(one["regex"], meta.get(one["source_labels"][0], "")) for one in keeps):
                found.add((name, port["name"]))
    return found


def test_prometheus_scrapes_every_node_of_a_run_and_nothing_else():
    (config,) = yaml.safe_load((MONITORING / "prometheus-kubernetes.yml").read_text())["scrape_configs"]
    (discovery,) = config["kubernetes_sd_configs"]
    assert (discovery["role"], discovery["namespaces"]["names"]) == ("pod", ["raysp"])
    job = next(one for one in rendered(KUBERNETES / "job") if one["kind"] == "RayJob")
    assert kept(config, job) == {
        *(("head", port) for port in FIXED_PORTS),
        ("decode", "metrics"),
        ("model", "metrics"),
    }
    assert {one["target_label"] for one in config["relabel_configs"] if "target_label" in one} > OF_THE_SCRAPE - {
        "ip",
        "SessionName",
    }


def test_the_pod_monitor_scrapes_the_same():
    (monitor,) = [one for one in rendered(MONITORING) if one["kind"] == "PodMonitor"]
    assert [*schema_faults(monitor)] == []
    assert {one["port"] for one in at(monitor, "spec/podMetricsEndpoints")} == FIXED_PORTS
    (selected,) = at(monitor, "spec/selector/matchLabels").items()
    job = next(one for one in rendered(KUBERNETES / "job") if one["kind"] == "RayJob")
    assert all(selected in pod["metadata"]["labels"].items() for _, pod in pods(job))
    broken = copy.deepcopy(monitor)
    broken["spec"]["podMetricsEndpoint"] = broken["spec"].pop("podMetricsEndpoints")
    assert [*schema_faults(broken)]


def test_grafana_finds_the_dashboard():
    (configured,) = [one for one in rendered(MONITORING) if one["kind"] == "ConfigMap"]
    assert configured["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(configured["data"]["grafana-dashboard.json"]) == DASHBOARD
    assert [*schema_faults(configured)] == []


def test_a_prometheus_beside_the_head_reads_rays_list_of_nodes():
    (config,) = read(MONITORING / "prometheus-machines.yml")[0]["scrape_configs"]
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    assert config["file_sd_configs"][0]["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
