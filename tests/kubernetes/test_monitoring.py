"""The dashboard, the alerts and the scrapers of cluster/monitoring."""

import inspect
import json
import re

from prometheus_client import CollectorRegistry
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels
from ray.dashboard.modules.reporter import reporter_agent

from tests.kubernetes.manifests import CLUSTER, KUBERNETES, METRICS, SINK, pods, read, rendered, schema_faults

MONITORING = CLUSTER / "monitoring"
OPERATIONS = (CLUSTER.parent / "docs/reference/columns.md").read_text()
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())

RAYSP_METRICS = {f"ray_{name}": {SINK, *filter(None, [label])} for name, (_, label) in METRICS.items()}
"""Metrics of a run with their labels, as Ray exports them."""
OF_THE_SCRAPE = {"ip", "SessionName", "ray_io_cluster", "ray_io_group", "ray_io_node_type"}
OF_RAY = {"State", "Location", "GpuIndex", "NodeType"}
WORDS = {"by", "sum", "avg", "max", "min", "count", "rate", "increase"}
"""Functions and words of PromQL that the dashboard uses."""


def rays_own() -> set[str]:
    """Return the metrics that the installed Ray exports, by what it exports them with and its own dashboard."""
    gauges = {f"ray_{name}" for name in reporter_agent.METRICS_GAUGES}
    autoscaler = AutoscalerPrometheusMetrics("session", CollectorRegistry())
    nodes = {metric.name for metric in autoscaler.registry.collect()}
    dashboard = set(re.findall(r"\bray_[a-z0-9_]+", inspect.getsource(default_dashboard_panels)))
    return gauges | nodes | dashboard


EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
EXPRESSIONS += [re.fullmatch(r"label_values\((\w+), (\w+)\)", query)[1] for query in VARIABLES]


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that an expression of PromQL names."""
    text = re.sub(r'"[^"]*"', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", text))
    labels |= {one.strip() for group in re.findall(r"\bby \(([^)]*)\)", text) for one in group.split(",")}
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", text)
    return set(re.findall(r"[a-zA-Z_]\w*", text)) - WORDS, labels


def test_the_panels_and_the_document_for_operators_have_the_metrics_that_exist_and_every_one_of_a_run():
    of_a_run, of_ray = RAYSP_METRICS.keys(), rays_own()
    assert len(of_ray) > 50
    for expression in EXPRESSIONS:
        metrics, labels = names_in(expression)
        assert metrics <= of_ray | of_a_run
        mine = set().union(*(RAYSP_METRICS.get(name, set()) for name in metrics))
        assert labels <= OF_THE_SCRAPE | (mine if metrics & of_a_run else OF_RAY)
        assert expression.count("(") == expression.count(")")
    assert of_a_run <= set().union(*(names_in(expression)[0] for expression in EXPRESSIONS))
    rows = re.findall(r"^\| `(raysp_\w+)(?:\{(\w+)\})?` \| (\w+) \|", OPERATIONS, re.MULTILINE)
    assert sorted(rows) == sorted((name, label, kind) for name, (kind, label) in METRICS.items())


def test_the_pod_monitor_and_prometheus_find_the_nodes_of_a_run_and_grafana_the_dashboard():
    documents = rendered(MONITORING)
    assert [fault for one in documents for fault in schema_faults(one)] == []
    [configured] = [one for one in documents if one["kind"] == "ConfigMap"]
    assert configured["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(configured["data"]["grafana-dashboard.json"]) == DASHBOARD
    [monitor] = [one for one in documents if one["kind"] == "PodMonitor"]
    [selected] = monitor["spec"]["selector"]["matchLabels"].items()
    [job] = [one for one in rendered(KUBERNETES / "job") if one["kind"] == "RayJob"]
    scraped = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    for name, pod in pods(job):
        ports = {port["name"] for port in pod["spec"]["containers"][0].get("ports", [])}
        assert selected in pod["metadata"].get("labels", {}).items()
        assert ports & scraped == {"head": scraped, "submitter": set()}.get(name, {"metrics"})
    (config,) = read(MONITORING / "prometheus-machines.yml")[0]["scrape_configs"]
    assert config["file_sd_configs"][0]["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
