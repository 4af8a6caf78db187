"""From environment to settings: defaults, rules, secrets, and all mistakes in one answer."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from chorus.config import (
    Assignment,
    Settings,
    SettingsError,
    exposure,
    load_run_settings,
    manual,
    save_run_settings,
)
from chorus.config.load import boot_settings, complete, load_settings
from chorus.config.read import warnings
from chorus.config.secret import derive_dev_secret
from chorus.config.values import as_json
from chorus.config.variables import BY_NAME, SECRETS, VARIABLES

DEV = {"CHORUS_LICENSE_ID": "dev-123", "HOME": "/home/someone"}

# An age identity and its recipient, made for these tests.
MEMBER_KEYS = (
    "AGE-SECRET-KEY-1HDJ0ST3DKHD69GQDT97DMD25HGT0ZXGU5RU5TZJMDNLKWNWWV3HSGFYUTU",
    "age1wklg9cr3ftasf0kncdzsvjyjzntlsd6hz7mqf68w4rm6q7yj5ftq5hvksu",
)

# One wrong value for each variable that has a form of its own: a new variable fails
# `test_every_form_is_checked`.
WRONG = {
    "CHORUS_AGENT_ID": "a b",
    "CHORUS_MODE": "human",
    "CHORUS_LOG_LEVEL": "loud",
    "CHORUS_LOG_FORMAT": "xml",
    "DOCKER_HOST": "docker",
    "CHORUS_P2P_PORT": "70000",
    "CHORUS_API_PORT": "http",
    "CHORUS_HEALTH_PORT": "-1",
    "CHORUS_P2P_HOST": "localhost:1",
    "CHORUS_API_HOST": "example",
    "CHORUS_BOOTSTRAP_PEERS": "/ip4/999.1.1.1/tcp/9000",
    "CHORUS_MDNS_ENABLED": "perhaps",
    "CHORUS_DHT_ENABLED": "2",
    "CHORUS_DHT_CACHE_SIZE": "much",
    "CHORUS_BLOBS_SIZE": "1KB",
    "CHORUS_CLUSTER_ID": "a/b",
    "CHORUS_CLUSTER_SECRET": "short",
    "CHORUS_ROLE_KEYS_FILE": "/no/such/file",
    "CHORUS_ROLE_GRANTS": "qa",
    "CHORUS_API_TOKEN": "short",
    "CHORUS_KACHING_URL": "http://kaching.example",
    "CHORUS_KACHING_PUBLIC_KEY": "not a key",
    "CHORUS_LICENSE_GRACE": "1 day",
    "CHORUS_AGENT_ROLE": "a/b",
    "CHORUS_AGENT_EXPERTISE": "rust,a b",
    "CHORUS_AGENT_REPORTS_TO": "a/b",
    "CHORUS_AGENT_SPECIALIZATION": "a/b",
    "CHORUS_AGENT_MAX_TASKS": "0",
    "CHORUS_ELECTION_HEARTBEAT": "50ms",
    "CHORUS_ELECTION_TIMEOUT": "200ms",
    "CHORUS_VOTERS": "0",
    "CHORUS_MEMBER_ABSENCE": "long",
    "CHORUS_REJOIN": "perhaps",
    "CHORUS_ELECTION_JOIN_WAIT": "3",
    "CHORUS_LEADERLESS": "walk",
    "CHORUS_TASK_LEASE": "1ms",
    "CHORUS_SHUTDOWN_TIMEOUT": "now",
    "CHORUS_RETENTION": "30",
    "CHORUS_SANDBOX_IMAGES": "[1]",
    "CHORUS_SANDBOX_CPUS": "-1",
    "CHORUS_SANDBOX_MEMORY": "1KB",
    "CHORUS_SANDBOX_PIDS": "1",
    "CHORUS_SANDBOX_DISK": "0",
    "CHORUS_SANDBOX_EGRESS": "example",
    "CHORUS_SANDBOX_WARM": "many",
    "CHORUS_HMMM_ENABLED": "x",
    "CHORUS_UCXI_ENABLED": "x",
    "CHORUS_AI_PROVIDER": "oracle",
    "CHORUS_AI_FALLBACK": "oracle",
    "CHORUS_AI_MAX_STEPS": "0",
    "CHORUS_AI_MAX_TOKENS": "0",
    "CHORUS_AI_MAX_USD": "0",
    "CHORUS_AI_TIMEOUT": "0s",
    "CHORUS_AI_CONTEXT": "100",
    "CHORUS_AI_PRICES": '{"m": {"in": 1}}',
    "CHORUS_AI_DAILY_USD": "-1",
    "CHORUS_HMMM_PERIOD": "30",
    "CHORUS_HMMM_ESCALATION": "10",
    "OLLAMA_ENDPOINT": "localhost",
    "OLLAMA_MODEL": "a model",
    "RESETDATA_API_KEY": "two words",
    "RESETDATA_BASE_URL": "x",
    "RESETDATA_MODEL": "a model",
    "ASSIGN_URL": "x",
    "ASSIGN_TOKEN": "two words",
    "CHORUS_BACKBEAT_ENABLED": "x",
    "CHORUS_BACKBEAT_ENDPOINT": "ftp://x",
    "CHORUS_SHHH_RULES_FILE": "/nowhere/rules.yaml",
}
FREE_TEXT = {
    "CHORUS_LICENSE_ID",
    "CHORUS_DATA_DIR",
    "CHORUS_RUN_DIR",
    "CHORUS_SANDBOX_ALLOW",
    "CHORUS_PROMPTS_DIR",
    "CHORUS_FETCH_ALLOW",
    "CHORUS_FETCH_CREDENTIALS_FILE",
}


def problems_of(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings({**DEV, **environ})
    return caught.value.problems


def test_a_development_licence_is_all_it_takes() -> None:
    settings = load_settings(DEV)
    assert (settings.p2p_port, settings.api_port, settings.health_port) == (9000, 8080, 8081)
    assert settings.p2p_hosts == ("127.0.0.1", "::1")
    assert not settings.network_open
    assert settings.api_host == "127.0.0.1"
    assert settings.data_dir == Path("/home/someone/.local/state/chorus/p2p-9000")
    assert settings.assignment.max_tasks == 3
    assert settings.assignment.specialization == "general"
    assert settings.heartbeat_s == 5
    assert settings.election_timeout_s == 15
    assert settings.task_lease_s == 30
    assert settings.dht_cache_bytes == 100 << 20
    assert settings.ai.providers == ("ollama",)
    assert settings.ai.ollama_endpoint == "http://localhost:11434"
    assert settings.ai.model_of("ollama") == "llama3.1:8b"


def test_defaults_are_the_contracts() -> None:
    settings = load_settings(DEV)
    assert settings.agent_id == ""  # made from the peer id at the start
    assert (settings.dht_enabled, settings.backbeat, settings.assign_url) == (True, "", "")
    assert settings.assignment == Assignment(
        role="", expertise=(), reports_to="", specialization="general", max_tasks=3, bootstrap_peers=()
    )
    assert settings.sandbox.images["rust"] == "anthonyrawlins/chorus-rust-dev:latest"


def test_every_form_is_checked_and_all_mistakes_are_reported_together() -> None:
    assert WRONG.keys() | FREE_TEXT == BY_NAME.keys()
    named = [problem.partition(":")[0] for problem in problems_of(**WRONG)]
    assert set(WRONG) <= set(named)


def test_a_problem_says_what_was_expected_and_what_was_found() -> None:
    [problem] = problems_of(CHORUS_P2P_PORT="abc")
    assert problem.startswith("CHORUS_P2P_PORT: expected a port")
    assert "'abc'" in problem


def test_what_is_not_utf8_is_named() -> None:
    # As Python has bytes of the environment that are none.
    said = os.fsdecode(b"/data/\xff")
    with pytest.raises(SettingsError) as caught:
        load_settings({**DEV, "CHORUS_DATA_DIR": said, "CHORUS_API_TOKEN": said * 10})
    assert caught.value.problems == [
        "CHORUS_DATA_DIR: expected text in UTF-8; it is '/data/\\udcff'",
        "CHORUS_API_TOKEN: expected text in UTF-8; what is set does not have that form",
    ]


def test_secrets_are_never_repeated() -> None:
    text = "\n".join(problems_of(CHORUS_API_TOKEN="s3cr et", CHORUS_CLUSTER_SECRET="hunter2"))
    assert "s3cr" not in text
    assert "hunter2" not in text
    secrets = {**DEV, "CHORUS_CLUSTER_SECRET": "a-secret-of-many-bytes-indeed", "CHORUS_API_TOKEN": "t" * 20}
    settings = load_settings(secrets)
    for shown in (repr(settings), repr(boot_settings(secrets))):
        assert "many-bytes" not in shown
        assert "t" * 20 not in shown


def test_rules_between_settings() -> None:
    assert "CHORUS_ELECTION_TIMEOUT" in problems_of(CHORUS_ELECTION_HEARTBEAT="6s")[0]
    assert "CHORUS_TASK_LEASE" in problems_of(CHORUS_TASK_LEASE="29s")[0]
    assert "CHORUS_HEALTH_PORT" in problems_of(CHORUS_API_PORT="8081")[0]
    fast = {
        "CHORUS_ELECTION_HEARTBEAT": "100ms",
        "CHORUS_ELECTION_TIMEOUT": "300ms",
        "CHORUS_TASK_LEASE": "600ms",
    }
    assert load_settings({**DEV, **fast}).election_timeout_s == pytest.approx(0.3)


def test_ports_that_may_be_any_do_not_clash() -> None:
    load_settings({**DEV, "CHORUS_P2P_PORT": "0", "CHORUS_API_PORT": "0", "CHORUS_HEALTH_PORT": "0"})


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.168.1.100/tcp/9000",
        "/ip6/::1/tcp/1",
        "/dns4/tasks.chorus-agent/tcp/9000",
        "/dns/host.example/tcp/9000",
    ],
)
def test_bootstrap_peers(address: str) -> None:
    peer = f"{address}/p2p/12D3KooWGzBRs9LvWwmTeXv3fWEWJm4nJ3Yz6oSfLFZYhxCnFV1x"
    settings = load_settings({**DEV, "CHORUS_BOOTSTRAP_PEERS": f" {address}, {peer},{address}"})
    assert settings.assignment.bootstrap_peers == (address, peer)


def test_the_cluster_secret_of_a_setting_comes_before_the_derived_one() -> None:
    derived = load_settings(DEV).cluster_secret.get_secret_value()
    assert derived == derive_dev_secret("dev-123")
    assert len(derived) == 32
    given = load_settings({**DEV, "CHORUS_CLUSTER_SECRET": "x" * 24}).cluster_secret.get_secret_value()
    assert given == b"x" * 24
    assert "24 bytes" in problems_of(CHORUS_CLUSTER_SECRET="x" * 23)[0]


def test_the_derivation_is_hkdf() -> None:
    # openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:dev-123 -kdfopt info:chorus/v1/dev-cluster HKDF
    assert (
        derive_dev_secret("dev-123").hex()
        == "1deeb1450eb70dce11e934e573fa575603c48b3437ff46a18eef3fcbdd12a7e7"
    )


def test_no_setting_holds_the_licence_id(tmp_path: Path) -> None:
    licence = "dev-0123456789abcdef"
    settings = load_settings({**DEV, "CHORUS_LICENSE_ID": licence, "CHORUS_RUN_DIR": str(tmp_path)})
    save_run_settings(settings)
    for text in (repr(settings), settings.paths.settings_json.read_text()):
        assert licence not in text
        assert licence.removeprefix("dev-") not in text
    assert (settings.license_shown, settings.license_kind) == ("development …cdef", "development")
    other = load_settings({**DEV, "CHORUS_LICENSE_ID": "dev-0123456789abcdeF"})
    assert settings.cluster_id.startswith("cluster-")
    assert settings.cluster_id != other.cluster_id
    assert settings.cluster_id == load_settings({**DEV, "CHORUS_LICENSE_ID": licence}).cluster_id


def test_listening_beyond_loopback_with_a_development_licence_is_warned_of() -> None:
    assert exposure(load_settings(DEV)) == ""
    assert exposure(load_settings({**DEV, "CHORUS_P2P_HOST": "127.0.0.1,::1"})) == ""
    derived = exposure(load_settings({**DEV, "CHORUS_P2P_HOST": "0.0.0.0"}))
    for word in ("0.0.0.0", "guesses the id", "CHORUS_CLUSTER_SECRET_FILE", "CHORUS_P2P_HOST"):
        assert word in derived
    assert "dev-123" not in derived
    given = exposure(load_settings({**DEV, "CHORUS_P2P_HOST": "::", "CHORUS_CLUSTER_SECRET": "x" * 32}))
    assert "whoever holds the cluster secret" in given
    assert "guesses" not in given


def test_without_any_cluster_secret_all_three_sources_are_named() -> None:
    [problem] = problems_of(CHORUS_LICENSE_ID="prod-1")
    assert all(source in problem for source in ("CHORUS_CLUSTER_SECRET", "KACHING", "dev-"))


def test_secret_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("  a secret of thirty bytes, yes\n\n")
    settings = load_settings({**DEV, "CHORUS_CLUSTER_SECRET_FILE": str(path)})
    assert settings.cluster_secret.get_secret_value() == b"  a secret of thirty bytes, yes\n"
    both = problems_of(CHORUS_CLUSTER_SECRET_FILE=str(path), CHORUS_CLUSTER_SECRET="x" * 30)
    assert "unset one of the two" in both[0]
    assert "CHORUS_API_TOKEN_FILE" in problems_of(CHORUS_API_TOKEN_FILE=str(tmp_path / "none"))[0]
    path.write_bytes(b"\xff\xfe" * 20)
    assert "not text" in problems_of(CHORUS_CLUSTER_SECRET_FILE=str(path))[0]


def test_a_role_keys_file_is_checked_at_the_start(tmp_path: Path) -> None:
    [identity, recipient] = MEMBER_KEYS
    path = tmp_path / "keys"
    path.write_text(f"# role: member\n{identity}\n{recipient}\n# role: admin\n{recipient}\n")
    path.chmod(0o600)
    assert load_settings({**DEV, "CHORUS_ROLE_KEYS_FILE": str(path)}).role_keys_file == path
    [problem] = problems_of(CHORUS_ROLE_KEYS_FILE=str(path), CHORUS_AGENT_ROLE="developer")
    assert problem.startswith("CHORUS_ROLE_KEYS_FILE")
    assert "no identity for role developer" in problem
    path.chmod(0o644)
    [problem] = problems_of(CHORUS_ROLE_KEYS_FILE=str(path))
    assert f"chmod 600 {path}" in problem


def test_role_grants() -> None:
    settings = load_settings({**DEV, "CHORUS_ROLE_GRANTS": "qa:developer, ops:observer"})
    assert settings.role_grants == (("qa", "developer"), ("ops", "observer"))


def test_run_dir_must_leave_room_for_sockets() -> None:
    assert "CHORUS_RUN_DIR" in problems_of(CHORUS_RUN_DIR="/tmp/" + "x" * 100)[0]


def test_unknown_names_are_pointed_out_with_the_nearest() -> None:
    [warning] = warnings({**DEV, "CHORUS_AGENT_MAXTASKS": "3"})
    assert "CHORUS_AGENT_MAX_TASKS" in warning
    assert warnings({**DEV, "CHORUS_API_TOKEN_FILE": "/x", "CHORUS_API_URL": "http://x"}) == []


def test_what_has_no_effect_yet_is_said() -> None:
    said = "\n".join(warnings({"CHORUS_FETCH_ALLOW": "x", "CHORUS_LEADERLESS": "wait", "OLLAMA_MODEL": "m"}))
    assert all(name in said for name in ("CHORUS_FETCH_ALLOW", "CHORUS_LEADERLESS"))
    assert "OLLAMA_MODEL" not in said


RESETDATA = {
    "CHORUS_AI_PROVIDER": "resetdata",
    "RESETDATA_BASE_URL": "https://api.resetdata.example/",
    "RESETDATA_API_KEY": "a-key-of-ours",
    "RESETDATA_MODEL": "org/model-1",
}


def test_a_second_provider_is_another_one() -> None:
    both = load_settings({**DEV, **RESETDATA, "CHORUS_AI_FALLBACK": "ollama"})
    assert both.ai.providers == ("resetdata", "ollama")
    assert [both.ai.model_of(name) for name in both.ai.providers] == ["org/model-1", "llama3.1:8b"]
    assert both.ai.resetdata_base_url == "https://api.resetdata.example"
    assert "CHORUS_AI_FALLBACK" in problems_of(CHORUS_AI_FALLBACK="ollama")[0]
    assert "CHORUS_AI_FALLBACK" in problems_of(CHORUS_AI_PROVIDER="none", CHORUS_AI_FALLBACK="ollama")[0]
    assert load_settings({**DEV, "CHORUS_AI_PROVIDER": "none"}).ai.providers == ()


def test_resetdata_needs_address_key_and_model() -> None:
    for more in ({"CHORUS_AI_PROVIDER": "resetdata"}, {"CHORUS_AI_FALLBACK": "resetdata"}):
        named = [problem.partition(":")[0] for problem in problems_of(**more)]
        assert named == ["RESETDATA_BASE_URL", "RESETDATA_API_KEY", "RESETDATA_MODEL"]


@pytest.mark.parametrize(
    ("name", "setting"), [("CHORUS_AI_DAILY_USD", "daily_usd"), ("CHORUS_AI_MAX_USD", "max_usd")]
)
def test_a_limit_of_money_needs_prices(name: str, setting: str) -> None:
    cap = {**RESETDATA, name: "2.5"}
    [problem] = problems_of(**cap)
    assert problem.startswith("CHORUS_AI_PRICES: expected a price for RESETDATA_MODEL")
    assert name in problem
    prices = '{"org/model-1": {"in": 3, "out": 15.5}}'
    ai = load_settings({**DEV, **cap, "CHORUS_AI_PRICES": prices}).ai
    assert (ai.prices, getattr(ai, setting)) == ({"org/model-1": (3.0, 15.5)}, 2.5)


@pytest.mark.parametrize(
    "prices",
    ["[]", "{", '{"m": 3}', '{"m": {"in": true, "out": 1}}', '{"m": {"in": -1, "out": 1}}', "[" * 99],
)
def test_prices_of_another_form(prices: str) -> None:
    [problem] = problems_of(CHORUS_AI_PRICES=prices)
    assert "USD per million tokens" in problem


@pytest.mark.parametrize(
    "endpoint", ["ftp://h", "http://", "http://u:p@h", "http://h:port", "http://h?x=1", "http://h/#x"]
)
def test_an_endpoint_is_an_address_and_nothing_more(endpoint: str) -> None:
    assert problems_of(OLLAMA_ENDPOINT=endpoint)[0].startswith("OLLAMA_ENDPOINT: expected a URL")


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://kaching.example", True),
        ("https://kaching.example:8443/base/", True),
        ("http://127.0.0.1:8090", True),
        ("http://[::1]:8090", True),
        ("http://localhost:8090/", True),
        ("http://kaching.example", False),
        ("http://10.0.0.1:8090", False),
        ("http://127.0.0.1.example", False),
        ("https://user:secret@kaching.example", False),
        ("https://kaching.example?x=1", False),
        ("ftp://127.0.0.1", False),
    ],
)
def test_secrets_go_over_tls_or_stay_on_this_machine(address: str, good: bool) -> None:
    kaching = {
        "CHORUS_LICENSE_ID": "prod-1",
        "CHORUS_KACHING_URL": address,
        "CHORUS_CLUSTER_SECRET": "x" * 24,
    }
    if good:
        settings = load_settings({**DEV, **kaching})
        assert settings.kaching_url == address.rstrip("/")
        assert settings.license_kind == "production"
    else:
        assert "an https URL" in problems_of(**kaching)[0]


def test_a_licence_server_makes_a_development_id_an_ordinary_one() -> None:
    boot = boot_settings({**DEV, "CHORUS_KACHING_URL": "https://kaching.example"})
    settings = complete(boot, b"x" * 32, "c1")
    assert (settings.license_kind, settings.license_shown, settings.cluster_id) == (
        "production",
        "production",
        "c1",
    )
    assert settings.cluster_secret.get_secret_value() == b"x" * 32
    assert settings.p2p_hosts == ("0.0.0.0", "::")
    assert not settings.secret_derived


def test_run_settings_come_back_as_they_were(tmp_path: Path) -> None:
    settings = load_settings(
        {**DEV, **RESETDATA, "CHORUS_RUN_DIR": str(tmp_path), "CHORUS_API_TOKEN": "t" * 20}
    )
    assert "a-key-of-ours" not in repr(settings)
    save_run_settings(settings)
    assert settings.paths.settings_json.stat().st_mode & 0o777 == 0o600
    back = load_run_settings(tmp_path)
    assert back == settings
    assert back.ai.resetdata_api_key.get_secret_value() == "a-key-of-ours"
    assert back.cluster_secret.get_secret_value() == derive_dev_secret("dev-123")
    assert isinstance(back, Settings)


def test_every_default_has_the_form_it_asks_of_others() -> None:
    for variable in VARIABLES:
        if variable.default:
            variable.parse(variable.default)


def test_every_secret_is_declared_as_one_and_handed_over_as_one(tmp_path: Path) -> None:
    said = {name: f"secret-{name}-of-many-bytes" for name in SECRETS - {"CHORUS_LICENSE_ID"}}
    said["CHORUS_KACHING_PUBLIC_KEY"] = "5e" * 32
    settings = load_settings({**DEV, **said, "CHORUS_RUN_DIR": str(tmp_path)})
    shown = str(as_json(settings)) + repr(settings)
    assert all(secret not in shown for secret in said.values())
    save_run_settings(settings)
    handed_over = settings.paths.settings_json.read_text()
    assert all(secret in handed_over or secret.encode().hex() in handed_over for secret in said.values())
    assert load_run_settings(tmp_path) == settings


def test_the_licence_id_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "licence"
    path.write_text("dev-123\n")
    settings = load_settings({"HOME": "/home/someone", "CHORUS_LICENSE_ID_FILE": str(path)})
    assert settings.cluster_secret.get_secret_value() == derive_dev_secret("dev-123")


@pytest.mark.parametrize(
    "url", ["https://h/a.json?k=1", "http://h:1/a.json", "file:///a/b.json", "file://localhost/a"]
)
def test_addresses_of_assignments(url: str) -> None:
    assert load_settings({**DEV, "ASSIGN_URL": url}).assign_url == url


@pytest.mark.parametrize(
    "url", ["ftp://h/a", "file://elsewhere/a", "file:a", "https://u:p@h/a", "http://h:x/", "/a"]
)
def test_what_is_no_address_of_an_assignment(url: str) -> None:
    assert problems_of(ASSIGN_URL=url)[0].startswith("ASSIGN_URL: expected an https, http or file URL")


def test_a_token_goes_over_tls_or_loopback_only() -> None:
    [problem] = problems_of(ASSIGN_URL="http://10.0.0.1/a", ASSIGN_TOKEN="t0ken")
    assert problem.startswith("ASSIGN_TOKEN")
    for url in ("https://10.0.0.1/a", "http://127.0.0.1/a"):
        load_settings({**DEV, "ASSIGN_URL": url, "ASSIGN_TOKEN": "t0ken"})


def test_every_setting_says_what_it_is_for() -> None:
    assert len(BY_NAME) == len(VARIABLES)
    assert [variable.name for variable in VARIABLES if not variable.help.endswith(".")] == []


def test_the_manual_is_what_the_declarations_say() -> None:
    written = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    assert written == manual.page(), "python -m chorus.config.manual > docs/configuration.md"


def test_names_are_environment_variables() -> None:
    assert all(re.fullmatch(r"[A-Z0-9_]+", variable.name) for variable in VARIABLES)


def test_backbeat_is_off_unless_it_is_asked_for_and_needs_its_server() -> None:
    endpoint = {"CHORUS_BACKBEAT_ENDPOINT": "http://beats:8000/base/"}
    assert load_settings({**DEV, **endpoint}).backbeat == ""
    on = {**DEV, "CHORUS_BACKBEAT_ENABLED": "true"}
    assert load_settings({**on, **endpoint}).backbeat == "http://beats:8000/base"
    for wrong in ("", "http://user:word@beats", "nats://beats?x=1", "beats:8000"):
        with pytest.raises(SettingsError) as caught:
            load_settings({**on, "CHORUS_BACKBEAT_ENDPOINT": wrong})
        assert len(caught.value.problems) == 1
        assert "CHORUS_BACKBEAT_ENDPOINT: expected an http, https or nats URL" in caught.value.problems[0]
