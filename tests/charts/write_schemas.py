"""Writes the charts' values.schema.json: `python -m tests.charts.write_schemas`.

What `config` may hold is taken from the settings of the services, so that Helm refuses what a pod would refuse. What
the chart sets itself, and every secret, is left out: a ConfigMap is no place for a key.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relay.settings import RelaySettings
from relay.settings_reader import Group
from upstream.settings import UpstreamSettings

CHARTS = Path(__file__).parents[2] / "charts"
Schema = dict[str, Any]
# Set by the chart, or a secret.
OWNED: dict[str, tuple[str, ...]] = {
    "relay": ("upstream.url", "upstream.key", "upstream.key_file", "serve.host", "serve.port", "admin.host",
              "admin.port", "data.dir", "otel.headers", "otel.headers_file"),
    "upstream": ("serve.host", "serve.port", "data.dir", "auth.signing_key", "auth.signing_key_file",
                 "database.url", "database.url_file", "redis.url", "redis.url_file"),
}  # fmt: skip
TREES: dict[str, type[Group]] = {"relay": RelaySettings, "upstream": UpstreamSettings}
UNNEEDED = {"title", "default", "examples", "format", "writeOnly"}

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
SWITCH: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 1}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65_535}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
ANYTHING: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": ANYTHING}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"}
RETENTION: Schema = {"enum": ["Retain", "Delete"]}


def table(**properties: Schema) -> Schema:
    """Return the schema of an object that has only these members."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def probe(**more: Schema) -> Schema:
    """Return the schema of what can be chosen about a probe."""
    return table(periodSeconds=COUNT, timeoutSeconds=COUNT, failureThreshold=COUNT, **more)


def config(service: str) -> Schema:
    """Return the schema of `config`, from the settings."""
    whole = TREES[service].model_json_schema()
    return _table(whole, whole["$defs"], "", OWNED[service])


def _table(group: Mapping[str, Any], groups: Mapping[str, Any], path: str, owned: Iterable[str]) -> Schema:
    made: Schema = {}
    for name, found in group["properties"].items():
        if f"{path}{name}" in owned:
            continue
        if "$ref" in found:
            inner = _table(groups[found["$ref"].rpartition("/")[2]], groups, f"{path}{name}.", owned)
            if inner["properties"]:
                made[name] = inner
        else:
            made[name] = {key: value for key, value in found.items() if key not in UNNEEDED}
    return table(**made)


def shared() -> dict[str, Schema]:
    """Return the values that both charts have."""
    return {
        "global": ANYTHING,
        "image": table(
            repository=NAME,
            tag=TEXT,
            digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
        ),
        "imagePullSecrets": OBJECTS,
        "nameOverride": TEXT,
        "fullnameOverride": TEXT,
        "extraEnv": OBJECTS,
        "service": table(type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, port=PORT, annotations=TEXTS),
        "resources": table(requests=ANYTHING, limits=ANYTHING),
        "serviceAccount": table(create=SWITCH, name=TEXT, annotations=TEXTS),
        "serviceMonitor": table(enabled=SWITCH, interval=NAME, labels=TEXTS),
        "podLabels": TEXTS,
        "podAnnotations": TEXTS,
        "nodeSelector": TEXTS,
        "tolerations": OBJECTS,
        "affinity": ANYTHING,
        "topologySpreadConstraints": OBJECTS,
        "priorityClassName": TEXT,
    }


def thresholds() -> Schema:
    """Return the schema of when alerts begin."""
    duration = {"type": "string", "pattern": "^[0-9]+[smhd]$"}
    above = {"type": "number", "minimum": 0}
    part = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    kinds = (
        (duration, ("notReadyFor", "disconnectedFor", "killPendingFor")),
        (part, ("spoolRatio", "capacityRatio", "memoryRatio")),
        (above, ("staleSeconds", "oldestEventSeconds", "loopLagSeconds", "changeLatencySeconds",
                 "cutStreamsPerMinute", "refusedConnectionsPerMinute")),
    )  # fmt: skip
    return table(**{name: kind for kind, names in kinds for name in names})


def relay() -> dict[str, Schema]:
    """Return the values of the relay's chart."""
    key = table(existingSecret=TEXT, existingSecretKey=NAME, value={"type": "string", "pattern": "^(hal_relay_.+)?$"})
    host = {**table(host=NAME, paths={"type": "array", "items": {"type": "string", "pattern": "^/"}})}
    return {
        "replicas": {"type": "integer", "minimum": 0},
        "upstream": table(url={"type": "string", "pattern": r"^https?://[^\s/?#]+[^\s?#]*$"}, key=key),
        "config": config("relay"),
        "persistence": table(
            enabled=SWITCH, size=QUANTITY, storageClass=TEXT, annotations=TEXTS, whenDeleted=RETENTION,
            whenScaled=RETENTION,
        ),
        "ingress": table(
            enabled=SWITCH, className=TEXT, annotations=TEXTS,
            hosts={"type": "array", "items": {**host, "required": ["host"]}}, tls=OBJECTS,
        ),
        "autoscaling": table(
            enabled=SWITCH, minReplicas=COUNT, maxReplicas=COUNT, targetCPUUtilizationPercentage=COUNT
        ),
        "podDisruptionBudget": table(
            enabled=SWITCH, maxUnavailable={"type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 0}
        ),
        "probes": table(startup=probe(), liveness=probe(), readiness=probe()),
        "networkPolicy": table(enabled=SWITCH, **{"from": OBJECTS}, adminFrom=OBJECTS),
        "prometheusRule": table(enabled=SWITCH, labels=TEXTS, thresholds=thresholds()),
        "dashboard": table(enabled=SWITCH, labels=TEXTS, annotations=TEXTS),
    }  # fmt: skip


def upstream() -> dict[str, Schema]:
    """Return the values of the upstream's chart."""
    value = {"type": "string", "pattern": "^(.{32,})?$"}
    secret = table(existingSecret=TEXT, existingSecretKey=NAME)
    return {
        "replicas": {"type": "integer", "minimum": 0},
        "database": secret,
        "redis": secret,
        "config": config("upstream"),
        "signingKey": table(existingSecret=TEXT, existingSecretKey=NAME, value=value),
        "firstStart": table(enabled=SWITCH),
        "persistence": table(
            enabled=SWITCH, size=QUANTITY, storageClass=TEXT, annotations=TEXTS, whenDeleted=RETENTION
        ),
        "probes": table(
            startup=probe(), liveness=probe(), readiness=probe(path={"enum": ["/livez", "/readyz", "/startupz"]})
        ),
        "networkPolicy": table(enabled=SWITCH, **{"from": OBJECTS}),
    }


def rendered(service: str) -> str:
    """Return what a chart's values.schema.json must hold."""
    own = {"relay": relay, "upstream": upstream}[service]()
    head = {"$schema": "http://json-schema.org/draft-07/schema#", **table(**(own | shared()))}
    return json.dumps(head, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for each in TREES:
        (CHARTS / f"halyard-{each}" / "values.schema.json").write_text(rendered(each))
