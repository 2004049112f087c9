"""Writes the relay's alert rules for a Prometheus without the operator: `python -m tests.charts.write_rules`.

Helm renders the chart's own PrometheusRule with the default thresholds; what stands in it is the file.
"""

import subprocess

import yaml

from tests.charts.write_schemas import CHARTS

FILE = CHARTS / "halyard-relay" / "rules" / "halyard-relay.yaml"
HEADER = """\
# Alerts for Halyard's relays, for `rule_files` of a Prometheus without the operator. docs/metrics.md says what to do
# about each. Generated from templates/_alerts.tpl with the default thresholds: python -m tests.charts.write_rules
"""


def rendered() -> str:
    """Return what the file must hold."""
    command = ["helm", "template", "live", str(CHARTS / "halyard-relay"), "--set", "prometheusRule.enabled=true"]
    done = subprocess.run([*command, "-s", "templates/prometheusrule.yaml"], capture_output=True, text=True, check=True)
    rules = yaml.safe_load(done.stdout)["spec"]
    return HEADER + yaml.safe_dump(rules, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(rendered())
