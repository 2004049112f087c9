"""How operators set things, and what they are told when they set them wrong."""

import tomllib
from pathlib import Path

import pytest

from relay.errors import BadSettings
from relay.settings import RelaySettings, load
from relay.settings_example import render, rows
from relay.settings_reader import Group, Source, options, read
from upstream.settings import UpstreamSettings

TREES: dict[str, type[Group]] = {"relay": RelaySettings, "upstream": UpstreamSettings}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def problems(source: Source) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        load(source)
    return list(caught.value.problems)


def test_everything_has_a_default() -> None:
    """A relay starts without any setting, on loopback."""
    settings = load(Source())
    assert (settings.serve.host, settings.serve.port, settings.admin.port) == ("127.0.0.1", 8701, 8702)
    assert settings.upstream.dead_after_s == 45


def test_precedence(tmp_path: Path) -> None:
    """A flag beats a variable, which beats the file."""
    file = toml(tmp_path, "[relay.serve]\nport = 1\nbacklog = 100\nkeep_alive_s = 7\n")
    environ = {"HALYARD_RELAY_SERVE__PORT": "2", "HALYARD_RELAY_SERVE__BACKLOG": "200"}
    serve = load(Source(file, environ, {"relay.serve.port": ("--port", 3)})).serve
    assert (serve.port, serve.backlog, serve.keep_alive_s) == (3, 200, 7)


def test_one_file_holds_both_services(tmp_path: Path) -> None:
    """The relay ignores what stands under `[upstream]`, so that one file can configure both."""
    file = toml(tmp_path, "[upstream.serve]\nport = 9\n[relay.serve]\nport = 8\n")
    assert load(Source(file)).serve.port == 8


def test_every_problem_is_reported_at_once_under_the_name_it_was_set_by(tmp_path: Path) -> None:
    """File, variables and flags are all checked before anything is said."""
    file = toml(tmp_path, '[relay.events]\nspool_byte = 3\n[relay.log]\nlevel = "loud"\n[upsteam]\n')
    environ = {"HALYARD_RELAY_DRAIN__ACCEPT_S": "soon", "HALYARD_RELAY_SERVE__PROT": "1"}
    found = problems(Source(file, environ, {"relay.serve.port": ("--port", "zz")}))
    assert len(found) == 6
    text = "\n".join(found)
    assert f"upsteam: unknown table in {file}; did you mean upstream?" in found
    assert "relay.events.spool_byte: unknown setting; did you mean relay.events.spool_bytes?" in found
    assert "relay.log.level: must be 'debug', 'info', 'warning' or 'error', not 'loud'" in found
    assert "HALYARD_RELAY_SERVE__PROT: unknown variable; did you mean HALYARD_RELAY_SERVE__PORT?" in found
    assert "HALYARD_RELAY_DRAIN__ACCEPT_S: must be a valid number" in text
    assert "--port: must be a valid integer" in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[relay.upstream]\nurl = 'ftp://x'", "relay.upstream.url: must be an http:// or https:// address"),
        (
            "[relay.upstream]\nbackoff_min_s = 50\nbackoff_max_s = 5",
            "relay.upstream: backoff_min_s (50.0) must not exceed",
        ),
        (
            "[relay.serve.streams]\nretry_min_ms = 9\nretry_max_ms = 5",
            "relay.serve.streams: retry_min_ms (9) must not exceed",
        ),
        ("[relay.events]\nsegment_bytes = 999999999", "relay.events: segment_bytes (999999999) must not exceed half"),
        (
            "[relay.serve]\npublic_origin = 'https://a/b'",
            "relay.serve.public_origin: must be scheme, host and port only",
        ),
        ("[relay.admin]\nport = 8701", "relay: admin.port must not be 8701, where serve listens"),
        ("[relay.serve]\nkeep_alive_s = nan", "relay.serve.keep_alive_s: must be a finite number"),
        ("[relay]\nserve = 3", "relay.serve: must be a table"),
        ("relay = 3", "relay: must be a table"),
        ("[relay", "cannot be read: Expected ']'"),
    ],
)
def test_bad_values(tmp_path: Path, text: str, sentence: str) -> None:
    """Each bad value is named by its path, with what would be right."""
    assert any(sentence in problem for problem in problems(Source(toml(tmp_path, text))))


def test_missing_file(tmp_path: Path) -> None:
    """A file that was named but is not there is an error, not an empty configuration."""
    assert "cannot be read: No such file" in problems(Source(tmp_path / "none.toml"))[0]


def test_secret_from_a_file(tmp_path: Path) -> None:
    """A secret may stand in a file; the line end is not part of it, and nothing shows the value."""
    secret = tmp_path / "key"
    secret.write_text("hal_relay_secret\n")
    settings = load(Source(environ={"HALYARD_RELAY_UPSTREAM__KEY_FILE": str(secret)}))
    assert settings.upstream.key is not None
    assert settings.upstream.key.get_secret_value() == "hal_relay_secret"
    assert "hal_relay_secret" not in repr(settings)


def test_secret_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    """Where both are set at the same place nobody can know which was meant; a flag beats the file's table."""
    secret = tmp_path / "key"
    secret.write_text("from-file")
    file = toml(tmp_path, f'[relay.upstream]\nkey = "a"\nkey_file = "{secret}"\n')
    assert problems(Source(file)) == ["relay.upstream.key: set either this or relay.upstream.key_file, not both"]
    file = toml(tmp_path, '[relay.upstream]\nkey = "a"\n')
    settings = load(Source(file, overrides={"relay.upstream.key_file": ("--upstream-key-file", str(secret))}))
    assert settings.upstream.key is not None
    assert settings.upstream.key.get_secret_value() == "from-file"
    file = toml(tmp_path, f'[relay.upstream]\nkey_file = "{secret}"\n')
    settings = load(Source(file, {"HALYARD_RELAY_UPSTREAM__KEY": "from-variable"}))
    assert settings.upstream.key is not None
    assert settings.upstream.key.get_secret_value() == "from-variable"


def test_unreadable_secret_file(tmp_path: Path) -> None:
    """A secret file that is not there, or is no secret, is a problem under the name it was set by."""
    environ = {"HALYARD_RELAY_UPSTREAM__KEY_FILE": "/nonexistent"}
    assert problems(Source(environ=environ)) == [
        "HALYARD_RELAY_UPSTREAM__KEY_FILE: /nonexistent cannot be read: No such file or directory"
    ]
    huge = tmp_path / "huge"
    huge.write_bytes(b"x" * 1_048_577)
    assert "larger than" in problems(Source(environ={"HALYARD_RELAY_UPSTREAM__KEY_FILE": str(huge)}))[0]


def test_a_bad_secret_is_not_shown() -> None:
    """The sentence about a secret does not contain it."""
    environ = {"HALYARD_UPSTREAM_AUTH__SIGNING_KEY": "tooshort"}
    with pytest.raises(BadSettings) as caught:
        upstream_settings(environ)
    assert "HALYARD_UPSTREAM_AUTH__SIGNING_KEY: " in str(caught.value)
    assert "tooshort" not in str(caught.value)


def upstream_settings(environ: dict[str, str]) -> UpstreamSettings:
    return read(UpstreamSettings, "upstream", Source(environ=environ))


def test_lists_and_nothing_in_variables() -> None:
    """A list is separated by commas; an empty variable means `not set`, as container files write it."""
    environ = {"HALYARD_RELAY_SERVE__TRUSTED_PROXIES": "10.0.0.1, ::1", "HALYARD_RELAY_SERVE__PORT": ""}
    serve = load(Source(environ=environ)).serve
    assert serve.trusted_proxies == ("10.0.0.1", "::1")
    assert serve.port == 8701


def test_kubernetes_service_links_are_not_settings() -> None:
    """A Service called halyard-relay puts variables into every pod; they must not stop the relay."""
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8701_TCP", "PORT_8701_TCP_ADDR")
    load(Source(environ={f"HALYARD_RELAY_{name}": "tcp://10.0.0.1:8701" for name in names}))
    load(Source(environ={f"HALYARD_RELAY_EU_2_{name}": "tcp://10.0.0.1:8701" for name in names}))


def test_a_mistyped_port_is_no_service_link() -> None:
    """One underscore where two should be is an error that names the right variable."""
    with pytest.raises(BadSettings, match="HALYARD_RELAY_SERVE_PORT: unknown variable"):
        load(Source(environ={"HALYARD_RELAY_SERVE_PORT": "80"}))


@pytest.mark.parametrize("service", TREES)
def test_every_setting_is_described(service: str) -> None:
    """Generated documentation has a sentence for each setting, and a value to show where there is no default."""
    for option in options(TREES[service], service):
        assert (option.field.description or "").endswith("."), option.path
        assert option.field.default is not None or option.field.examples, option.path


def test_every_variable_name_is_unique() -> None:
    """No two settings share a variable."""
    names = [row.env for service, tree in TREES.items() for row in rows(tree, service)]
    assert len(names) == len(set(names))


def test_rows() -> None:
    """The table of settings names path, type, default and variable."""
    by_path = {row.path: row for row in rows(RelaySettings, "relay")}
    assert (by_path["relay.log.format"].type, by_path["relay.log.format"].default) == (
        '"auto" | "human" | "json"',
        '"auto"',
    )
    assert by_path["relay.upstream.key"].type == "secret"
    assert by_path["relay.serve.trusted_proxies"].type == "list of strings"
    assert by_path["relay.admin.max_stale_s"].type == "number"
    assert by_path["relay.serve.port"].env == "HALYARD_RELAY_SERVE__PORT"


def test_example_is_current() -> None:
    """`config.example.toml` is what the settings render to; run `make config` after a change."""
    assert Path("config.example.toml").read_text() == render(TREES)


def test_example_is_valid_when_uncommented(tmp_path: Path) -> None:
    """Every line of the example can be used as it stands: its defaults are the defaults."""
    lines = [
        line.removeprefix("#") if line.startswith("#") and line[1:2].isalpha() else line
        for line in render(TREES).splitlines()
    ]
    text = "\n".join(line for line in lines if not line.startswith(("key", "signing_key", "headers_file")))
    assert len(tomllib.loads(text)["relay"]) == len(RelaySettings.model_fields)
    settings = load(Source(toml(tmp_path, text)))
    assert settings.events == load(Source()).events
