"""The relay's alerts and dashboard: they ask for metrics that exist, can be read, and are explained.

What the relay shows is taken from its own registry, so that a metric that is renamed breaks a test and not an alert.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from relay.metrics import RelayMetrics
from tests.charts.test_charts import Object, only, render
from tests.charts.write_rules import FILE, rendered
from tests.charts.write_schemas import CHARTS

ROOT = CHARTS.parent
DASHBOARD = CHARTS / "halyard-relay" / "dashboards" / "halyard-relay.json"
PAGE = (ROOT / "docs/metrics.md").read_text()
with_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on this machine")
with_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (of Prometheus) is not on this machine"
)
pytestmark = pytest.mark.system

RULES: list[Object] = yaml.safe_load(FILE.read_text())["groups"][0]["rules"]
BOARD: Object = json.loads(DASHBOARD.read_text())
PANELS: list[Object] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
WORDS = {
    "and", "by", "count", "histogram_quantile", "increase", "label_values", "max", "min", "or", "rate", "sum", "time",
    "unless", "without",
}  # fmt: skip


def shown() -> dict[str, set[str]]:
    """Return the name of every sample that a relay can show, with its labels."""
    metrics = RelayMetrics()
    metrics.watch_process()
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels}
        names = {sample.name for sample in family.samples}
        # A family that nothing was counted in yet has no samples, but a name and labels.
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
        for member in vars(metrics).values():
            if getattr(member, "name", None) == family.name:
                labels |= set(getattr(member, "labels", ()))
        found |= dict.fromkeys(names, labels)
    return found


SHOWN = shown()


def unknown_in(expression: str) -> list[str]:
    """Return what an expression asks for and no relay shows: metrics, and labels in their selectors."""
    without_text = re.sub(r'"[^"]*"', '""', expression)
    wrong = [
        f"{label} of {name}"
        for name, selector in re.findall(r"([a-z_]+)(\{[^}]*\})", without_text)
        for label in re.findall(r"(\w+)=", selector)
        if label not in SHOWN.get(name, set()) | {"instance"}
    ]
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without) \([^)]*\)|\b\d[\d.]*[smhd]?\b", " ", without_text)
    wrong += [name for name in re.findall(r"[a-z_]\w*", bare) if name not in WORDS and name not in SHOWN]
    return wrong


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("halyard_relay_ready == 0", []),
        ("halyard_relay_gone > 1", ["halyard_relay_gone"]),
        ('rate(halyard_relay_requests_total{status="500"}[5m]) > 0.5', []),
        ('halyard_relay_requests_total{code="500"}', ["code of halyard_relay_requests_total"]),
        ("halyard_relay_requests", ["halyard_relay_requests"]),
    ],
)
def test_unknown_names_are_found(expression: str, wrong: list[str]) -> None:
    """The check itself finds metrics and labels that do not exist."""
    assert unknown_in(expression) == wrong


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: Object) -> None:
    """Every metric and label exists; the alert says what is wrong, what that means, and what to do."""
    assert unknown_in(rule["expr"]) == []
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert list(rule["annotations"]) == ["summary", "description", "remedy"]
    assert all(text.endswith(".") for text in rule["annotations"].values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_explained(rule: Object) -> None:
    """The page has a section for it."""
    assert f"\n### {rule['alert']}\n" in PAGE


def test_no_alert_is_explained_that_is_not_there() -> None:
    """The page has sections for these alerts alone."""
    assert set(re.findall(r"^### (Halyard\w+)$", PAGE, re.MULTILINE)) == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: Object) -> None:
    """Every metric and label exists, and the panel says what it shows."""
    assert panel["description"].endswith(".")
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m")
        assert unknown_in(expression) == []
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in {"instance", "le"} or any(label in SHOWN[name] for name in SHOWN if name in expression)


def test_panels_have_places_and_names_of_their_own() -> None:
    """No two panels share an id or a title, and none lies over another."""
    every = BOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


@with_helm
def test_the_rules_file_is_the_charts() -> None:
    """rules/halyard-relay.yaml is as `python -m tests.charts.write_rules` writes it."""
    assert FILE.read_text() == rendered()


@with_helm
def test_thresholds_labels_and_dashboard_are_chosen_by_values() -> None:
    """Neither is there unless it is asked for; thresholds arrive in the expressions, and the dashboard as it is."""
    assert not [each for each in render("relay", {}) if each["kind"] == "PrometheusRule"]
    values: Object = {
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "thresholds": {"staleSeconds": 7, "notReadyFor": "9m"},
        },
        "dashboard": {"enabled": True, "labels": {"team": "flags"}, "annotations": {"grafana_folder": "Flags"}},
    }
    objects = render("relay", values)
    rule = only(objects, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    found = {each["alert"]: each for each in rule["spec"]["groups"][0]["rules"]}
    assert found["HalyardRelayStale"]["expr"].endswith("> 7")
    assert found["HalyardRelayNotReady"]["for"] == "9m"
    (board,) = [each for each in objects if each["metadata"]["name"].endswith("-dashboard")]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["labels"]["team"] == "flags"
    assert json.loads(board["data"]["halyard-relay.json"]) == BOARD


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_prometheus_takes_the_rules() -> None:
    """Prometheus' own check finds nothing."""
    promtool("check", "rules", str(FILE))


@with_promtool
def test_the_metrics_are_as_prometheus_wants_them() -> None:
    """Prometheus' own check of names, units and help finds nothing."""
    text = RelayMetrics().exposition()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def of(instance: str, series: dict[str, str]) -> list[Object]:
    """Return input series of one relay."""
    label = f'instance="{instance}"'
    return [
        {"series": f"{name[:-1]},{label}}}" if name.endswith("}") else f"{name}{{{label}}}", "values": values}
        for name, values in series.items()
    ]


@with_promtool
def test_each_alert_begins_when_it_should_and_only_then(tmp_path: Path) -> None:
    """Of two relays the one that is unwell raises the alert within half an hour, and the one that is well never."""
    stories = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
    assert set(stories["unwell"]) == {rule["alert"] for rule in RULES}
    bare = [{name: value for name, value in rule.items() if name != "annotations"} for rule in RULES]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": bare}]}))
    well = of("well", stories["well"])
    tests: list[Object] = []
    for rule in RULES:
        story = stories["unwell"][rule["alert"]]
        labels = {**rule["labels"], "instance": "unwell", **story.get("labels", {})}
        expected = {"eval_time": "25m", "alertname": rule["alert"], "exp_alerts": [{"exp_labels": labels}]}
        series = [*of("unwell", story["series"]), *well]
        tests.append({"interval": "30s", "input_series": series, "alert_rule_test": [expected]})
    never = [
        {"eval_time": minutes, "alertname": rule["alert"], "exp_alerts": []}
        for rule in RULES
        for minutes in ("5m", "29m")
    ]
    tests.append({"interval": "30s", "input_series": well, "alert_rule_test": never})
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    promtool("test", "rules", str(tmp_path / "tests.yaml"))
