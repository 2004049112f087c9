"""The charts, rendered by Helm itself: what they promise of safety, probes, drain and secrets.

Several sets of values are tried. The settings that a chart writes are read by the services' own loader, so that no pod
refuses what Helm accepted.
"""

import json
import math
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.drain import GRACE_S
from relay.process import LAST_REQUESTS_S
from relay.settings import Drain
from relay.settings import load as load_relay
from relay.settings_reader import Source, options
from relay.version import VERSION
from tests.charts.write_schemas import CHARTS, OWNED, TREES, rendered
from tests.container.dockerfile import stages
from upstream.settings import load as load_upstream

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on this machine"),
]
Object = dict[str, Any]
SERVICES = ["relay", "upstream"]
PORTS = {"relay": {"http": 8701, "admin": 8702}, "upstream": {"http": 8700}}
KEY = "hal_relay_" + "k" * 38
SIGNING_KEY = "s" * 40
URLS = {"database": "postgresql://halyard:password@db/halyard", "redis": "redis://redis:6379/0"}
PHASES = 5

# What is tried of each chart, beside its defaults.
EVERYTHING: dict[str, Object] = {
    "relay": {
        "image": {"repository": "flags/relay", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "upstream": {"url": "https://flags.example.com", "key": {"value": KEY}},
        "config": {
            "serve": {"trusted_proxies": ["10.0.0.7", "10.0.0.8"], "streams": {"total": 1000, "lifetime_s": 90.5}},
            "events": {"spool_bytes": 1_073_741_824, "commit_s": 0.0005, "durability": "memory"},
            "drain": {"accept_s": 0, "window_s": 120.5, "forward_s": 60},
            "log": {"level": "debug"},
        },
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "persistence": {"storageClass": "fast", "annotations": {"backup": "no"}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"},
            "hosts": [{"host": "flags.example.com"}, {"host": "b.example.com", "paths": ["/ofrep", "/api"]}],
            "tls": [{"hosts": ["flags.example.com"], "secretName": "tls"}],
        },
        "autoscaling": {"enabled": True, "maxReplicas": 5},
        "networkPolicy": {"enabled": True, "from": [{"podSelector": {"matchLabels": {"uses": "flags"}}}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "thresholds": {"killPendingFor": "5m"}},
        "serviceAccount": {"annotations": {"a": "b"}},
        "podLabels": {"team": "flags"},
        "podAnnotations": {"note": "1"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClassName": "high",
    },
    "upstream": {
        "image": {"tag": "1.2.3"},
        "config": {
            "auth": {"access_token_s": 600},
            "retention": {"events_days": 90, "stream_days": 0.5},
            "serve": {"public_origin": "https://flags.example.com"},
            "drain": {"accept_s": 1.5},
            "database": {"writers": 8},
        },
        "replicas": 3,
        "database": {"existingSecret": "postgresql"},
        "redis": {"existingSecret": "redis", "existingSecretKey": "url"},
        "signingKey": {"value": SIGNING_KEY},
        "persistence": {"storageClass": "fast"},
        "service": {"annotations": {"a": "b"}},
        "networkPolicy": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "podLabels": {"team": "flags"},
        "podAnnotations": {"note": "1"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClassName": "high",
    },
}
LITTLE: dict[str, Object] = {
    "relay": {
        "persistence": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "fullnameOverride": "flags",
    },
    "upstream": {
        "persistence": {"enabled": False},
        "firstStart": {"enabled": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "signingKey": {"existingSecret": "signing"},
    },
}
CASES = [(service, values) for service in SERVICES for values in ({}, EVERYTHING[service], LITTLE[service])]
NAMES = [f"{service}-{name}" for service in SERVICES for name in ("defaults", "everything", "little")]
every_case = pytest.mark.parametrize(("service", "values"), CASES, ids=NAMES)


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm, with values on its standard input."""
    return subprocess.run(
        ["helm", *arguments, "--values", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def render(service: str, values: Object) -> list[Object]:
    """Return the objects of a release called `live`."""
    done = helm("template", "live", str(CHARTS / f"halyard-{service}"), "--namespace", "flags", values=values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each is not None]


def only(objects: list[Object], kind: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def pods(objects: list[Object]) -> list[Object]:
    """Return the specification of every pod that comes into being, the one of `helm test` too."""
    return [
        each["spec"] if each["kind"] == "Pod" else each["spec"]["template"]["spec"]
        for each in objects
        if each["kind"] in {"Pod", "StatefulSet"}
    ]


def settings_file(objects: list[Object]) -> str:
    text: str = only(objects, "ConfigMap")["data"]["halyard.toml"]
    return text


@every_case
def test_lints(service: str, values: Object) -> None:
    """`helm lint --strict` finds nothing."""
    done = helm("lint", "--strict", str(CHARTS / f"halyard-{service}"), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@every_case
def test_no_container_has_rights(service: str, values: Object) -> None:
    """Every container of every pod is without root, capabilities, a writable root and a token for Kubernetes."""
    objects = render(service, values)
    assert len(pods(objects)) == 2
    for pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert str(pod["securityContext"]["runAsUser"]) == stages()[service].last("USER").partition(":")[0]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


@every_case
def test_probes_ask_what_is_answered(service: str, values: Object) -> None:
    """The three probes name ports that the container has, and none restarts a relay that only waits for an upstream."""
    (container,) = pods([only(render(service, values), "StatefulSet")])[0]["containers"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == PORTS[service]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert all(each["port"] in PORTS[service] for each in asked.values())
    assert asked["startup"]["path"] == asked["liveness"]["path"] == "/livez"
    assert asked["readiness"]["path"] == ("/readyz" if service == "relay" else "/livez")


@every_case
def test_a_pod_has_time_to_drain(service: str, values: Object) -> None:
    """The grace period is longer than all phases of the drain with what each may take beyond its limit."""
    objects = render(service, values)
    drain = Drain.model_validate(tomllib.loads(settings_file(objects))[service].get("drain", {}))
    phases_s = drain.accept_s + drain.window_s + drain.forward_s + LAST_REQUESTS_S + PHASES * GRACE_S
    (pod,) = pods([only(objects, "StatefulSet")])
    assert phases_s < pod["terminationGracePeriodSeconds"] < phases_s + 15


@every_case
def test_readiness_is_lost_while_the_relay_still_accepts(service: str, values: Object) -> None:
    """With the default drain the probe that takes a pod out of its Service comes at least twice before the end."""
    (container,) = pods([only(render(service, values), "StatefulSet")])[0]["containers"]
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < Drain().accept_s


@every_case
@pytest.mark.parametrize("has_image", [True, False], ids=["image", "file alone"])
def test_the_service_accepts_its_settings(service: str, values: Object, tmp_path: Path, *, has_image: bool) -> None:
    """The file of the ConfigMap with the mounted secret is a configuration, also beside the image's variables."""
    secret = tmp_path / "secret"
    secret.write_text(f"{KEY if service == 'relay' else SIGNING_KEY}\n")
    text = settings_file(render(service, values))
    for name in ("relay-key", "signing-key"):
        text = text.replace(f"/run/secrets/halyard/{name}", str(secret))
    for name, url in URLS.items():
        (tmp_path / name).write_text(f"{url}\n")
        text = text.replace(f"/run/secrets/halyard-{name}/{name}-url", str(tmp_path / name))
    file = tmp_path / "halyard.toml"
    file.write_text(text)
    source = Source(file, stages()[service].pairs("ENV") if has_image else {})
    expected = values.get("config", {})
    if service == "relay":
        relay = load_relay(source)
        assert relay.upstream.key is not None
        assert relay.upstream.key.get_secret_value() == KEY
        assert (relay.serve.host, relay.admin.host, str(relay.data.dir)) == ("0.0.0.0", "0.0.0.0", "/data")
        assert {"http": relay.serve.port, "admin": relay.admin.port} == PORTS["relay"]
        shown = relay.model_dump(mode="json")
    else:
        upstream = load_upstream(source)
        assert (upstream.auth.signing_key is not None) == bool(values.get("signingKey"))
        assert upstream.is_postgresql == ("database" in values)
        assert (upstream.redis.url is not None) == ("redis" in values)
        assert (upstream.serve.host, str(upstream.data.dir)) == ("0.0.0.0", "/data")
        assert {"http": upstream.serve.port} == PORTS["upstream"]
        shown = upstream.model_dump(mode="json")
    assert_within(expected, shown)


def assert_within(expected: Object, shown: Object) -> None:
    """Check that every value that was asked for has arrived."""
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_within(value, shown[name])
        else:
            assert shown[name] == value, name


@every_case
def test_secrets_are_in_secrets_only(service: str, values: Object) -> None:
    """A key given as a value stands in a Secret and nowhere else, and is mounted as a file that others cannot read."""
    objects = render(service, values)
    key = KEY if service == "relay" else SIGNING_KEY
    holding = [each["kind"] for each in objects if key in json.dumps(each)]
    assert holding == (["Secret"] if key in json.dumps(values) else [])
    (pod,) = pods([only(objects, "StatefulSet")])
    mounted = [each["secret"] for each in pod["volumes"] if "secret" in each]
    secrets = (
        ["key"] if service == "relay" else [each for each in ("signingKey", "database", "redis") if each in values]
    )
    assert len(mounted) == len(secrets)
    assert all(each["defaultMode"] == 0o440 for each in mounted)
    if holding:
        secret = only(objects, "Secret")
        assert secret["metadata"]["name"] == mounted[0]["secretName"]
        assert mounted[0]["items"][0]["key"] in secret["stringData"]


@every_case
def test_objects_belong_together(service: str, values: Object) -> None:
    """Labels are the usual ones, selectors meet the pods, and whatever is named exists in the release."""
    objects = render(service, values)
    stateful = only(objects, "StatefulSet")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "live"
        if each["kind"] != "Pod":
            assert each["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION
            assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "halyard"
    selectors = [stateful["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in objects if each["kind"] == "Service"]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in objects if each["kind"] == "PodDisruptionBudget"]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in objects if each["kind"] == "NetworkPolicy"]
    assert all(selector.items() <= labels.items() for selector in selectors)
    # The pod of `helm test` is no relay and must get no traffic.
    (tester,) = [each for each in objects if each["kind"] == "Pod"]
    assert not any(selector.items() <= tester["metadata"]["labels"].items() for selector in selectors)
    services = {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}
    assert stateful["spec"]["serviceName"] in services
    assert tester["spec"]["containers"][0]["command"][3] in services
    mounts = {mount["name"] for mount in stateful["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    volumes = {each["name"] for each in stateful["spec"]["template"]["spec"]["volumes"]}
    claims = {each["metadata"]["name"] for each in stateful["spec"].get("volumeClaimTemplates", [])}
    assert mounts == volumes | claims
    assert volumes & claims == set()


def test_what_is_optional_appears_when_it_is_asked_for() -> None:
    """Each is there with its switch, from the ingress to the alerts, and an autoscaler owns the number."""
    kinds = {each["kind"] for each in render("relay", {})}
    assert kinds == {
        "ConfigMap", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet",
    }  # fmt: skip
    objects = render("relay", EVERYTHING["relay"])
    more = {"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PrometheusRule", "Secret", "ServiceMonitor"}
    assert {each["kind"] for each in objects} == kinds | more
    assert "replicas" not in only(objects, "StatefulSet")["spec"]
    rules = only(objects, "Ingress")["spec"]["rules"]
    assert [[path["path"] for path in rule["http"]["paths"]] for rule in rules] == [["/"], ["/ofrep", "/api"]]
    applications, operators = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert applications["from"] == EVERYTHING["relay"]["networkPolicy"]["from"]
    assert operators == {"ports": [{"port": "admin", "protocol": "TCP"}], "from": [{"podSelector": {}}]}
    claim = only(objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"


def test_the_image_is_the_charts_version_unless_a_tag_or_digest_is_given() -> None:
    """A chart and its image go together; a digest counts more than a tag."""

    def image(service: str, values: Object) -> str:
        name: str = pods([only(render(service, values), "StatefulSet")])[0]["containers"][0]["image"]
        return name

    assert image("relay", {}) == f"halyard-relay:{VERSION}"
    assert image("upstream", EVERYTHING["upstream"]) == "halyard-upstream:1.2.3"
    assert image("relay", EVERYTHING["relay"]) == "flags/relay@sha256:" + "0" * 64


@pytest.mark.parametrize("service", SERVICES)
def test_changed_settings_restart_the_pods(service: str) -> None:
    """The pods bear a checksum of their settings, and of a key given as a value."""

    def annotations(values: Object) -> Object:
        template: Object = only(render(service, values), "StatefulSet")["spec"]["template"]
        found: Object = template["metadata"]["annotations"]
        return found

    assert annotations({}) == annotations({"podLabels": {"a": "b"}})
    assert annotations({}) != annotations({"config": {"log": {"level": "debug"}}})
    if service == "relay":
        first, second = ({"upstream": {"key": {"value": KEY + each}}} for each in "ab")
        assert annotations(first) != annotations(second)


REFUSED: list[tuple[str, Object, str]] = [
    ("relay", {"replicas": "two"}, "replicas"),
    ("relay", {"replica": 2}, "replica"),
    ("relay", {"config": {"upstream": {"key": KEY}}}, "'key'"),
    ("relay", {"config": {"serve": {"port": 80}}}, "'port'"),
    ("relay", {"config": {"drain": {"window_s": 601}}}, "window_s"),
    ("relay", {"config": {"log": {"level": "loud"}}}, "level"),
    ("relay", {"upstream": {"url": "halyard:8700"}}, "url"),
    ("relay", {"upstream": {"key": {"value": "hal_server_x"}}}, "key"),
    ("relay", {"upstream": {"key": {"existingSecret": ""}}}, "a relay needs a key"),
    ("upstream", {"replicas": 2}, "more than one upstream need PostgreSQL"),
    ("upstream", {"database": {"existingSecret": "postgresql"}}, "PostgreSQL needs signingKey"),
    ("upstream", {"config": {"database": {"url": URLS["database"]}}}, "'url'"),
    ("upstream", {"config": {"auth": {"signing_key": SIGNING_KEY}}}, "'signing_key'"),
    ("upstream", {"config": {"retention": {"event_days": 3}}}, "event_days"),
    ("upstream", {"signingKey": {"value": "short"}}, "signingKey"),
    ("upstream", {"probes": {"readiness": {"path": "/"}}}, "path"),
]


@pytest.mark.parametrize(("service", "values", "said"), REFUSED)
def test_wrong_values_are_refused(service: str, values: Object, said: str) -> None:
    """Helm refuses before anything is installed, and names the place."""
    done = helm("template", "live", str(CHARTS / f"halyard-{service}"), values=values)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_the_schema_is_of_these_settings(service: str) -> None:
    """values.schema.json is as `python -m tests.charts.write_schemas` writes it, with every setting but the chart's."""
    text = (CHARTS / f"halyard-{service}" / "values.schema.json").read_text()
    assert text == rendered(service)

    def leaves(table: Object, path: str) -> list[str]:
        return [
            leaf
            for name, found in table["properties"].items()
            for leaf in (leaves(found, f"{path}{name}.") if "properties" in found else [f"{path}{name}"])
        ]

    known = [option.path.partition(".")[2] for option in options(TREES[service], service)]
    found = leaves(json.loads(text)["properties"]["config"], "")
    assert sorted(found) == sorted(each for each in known if each not in OWNED[service])


@pytest.mark.parametrize("service", SERVICES)
def test_every_value_is_explained(service: str) -> None:
    """Each table at the top of values.yaml has a comment, the schema knows all of them, and versions agree."""
    chart = CHARTS / f"halyard-{service}"
    text = (chart / "values.yaml").read_text()
    blocks = [block for block in text.split("\n\n") if any(line[:1].isalpha() for line in block.splitlines())]
    assert len(blocks) > 10
    assert [block for block in blocks if "#" not in block] == []
    values, schema = yaml.safe_load(text), json.loads((chart / "values.schema.json").read_text())
    assert set(schema["properties"]) == set(values) | {"global"}
    description = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert (description["version"], description["appVersion"]) == (VERSION, VERSION)


def test_the_first_start_makes_an_owner_and_a_key(tmp_path: Path) -> None:
    """The init container's command, on an empty directory and again: one owner, one key, in private files."""
    manifests = render("upstream", {})
    (init,) = only(manifests, "StatefulSet")["spec"]["template"]["spec"]["initContainers"]
    config = tmp_path / "halyard.toml"
    config.write_text(only(manifests, "ConfigMap")["data"]["halyard.toml"].replace("/data", str(tmp_path / "data")))
    here = {"/etc/halyard/halyard.toml": str(config), "/data/first-sign-in": str(tmp_path / "data/first-sign-in")}
    command = [str(Path(sys.executable).parent / "halyard"), *(here.get(each, each) for each in init["args"])]
    seen = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        files = [tmp_path / "data" / name for name in ("first-sign-in", "relay.key")]
        assert [each.stat().st_mode & 0o777 for each in files] == [0o600, 0o600]
        seen.append([each.read_text() for each in files])
    assert seen[0] == seen[1]
    assert seen[0][0].startswith("sign in    owner@")
    assert seen[0][1].startswith("hal_relay_")
    config.write_text("[upstream]\nwrong = 1\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("halyard: upstream.wrong: unknown setting")


def test_the_default_grace_needs_no_arithmetic_by_hand() -> None:
    """The defaults that the templates repeat are those of the settings."""
    drain = Drain()
    expected = math.ceil(drain.accept_s + drain.window_s + drain.forward_s + 15)
    for service in SERVICES:
        assert pods([only(render(service, {}), "StatefulSet")])[0]["terminationGracePeriodSeconds"] == expected
