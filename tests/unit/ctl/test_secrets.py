"""`chorusctl run` says what looks secret before it sends anything, and takes secrets without showing them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import credentials
from chorus.ctl.cli import build_parser, main
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.problems import USAGE, CtlError
from chorus.ctl.run import task_of

TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
KEY = "-----BEGIN " + "PRIVATE KEY-----\nx\n"

LEFT_OUT = [
    ".env",
    "sub/.env.local",
    ".env.production",
    "prod.env",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".git-credentials",
    "id_rsa",
    "keys/id_ed25519",
    "deploy/.ssh/id_ed25519",
    ".ssh/config",
    ".ssh/work",
    "home/.aws/credentials",
    "x/.config/gcloud/credentials.db",
    "application_default_credentials.json",
    ".azure/accessTokens.json",
    ".kube/config",
    "vault.kdbx",
    "store.p12",
    "store.PFX",
    "app.jks",
    "terraform.tfstate",
    "terraform.tfstate.backup",
    ".gnupg/private-keys-v1.d/x.key",
    ".cargo/credentials.toml",
]
SENT = [
    ".env.example",
    ".env.sample",
    "sub/.env.template",
    ".env.dist",
    "environment.py",
    "env",
    "id_rsa.pub",
    "keys/id_custom.pub",
    ".ssh/id_rsa.pub",
    ".ssh/known_hosts",
    "README.md",
    "config",
    "credentials",
    "netrc.py",
    "terraform.tf",
    "kube/config",
    "identity.pem.md",
]
BY_CONTENT = [
    ("server.pem", KEY, "-----BEGIN CERTIFICATE-----\n"),
    ("server.key", KEY, "a key of a map"),
    ("deep/id_custom", KEY, "an id"),
    (".npmrc", "//r.example.org/:_authToken=abc", "save-exact=true"),
    (".pypirc", "[pypi]\npassword = x", "[distutils]\nindex-servers = pypi"),
    (".docker/config.json", '{"auths": {"x": {"auth": "eDp5"}}}', '{"auths": {}}'),
    ("sa.json", '{"type": "service_account"}', '{"type": "module"}'),
]


def place(root: Path, name: str, content: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


class Agent:
    """An agent that takes a task and ends it at once; it keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.notices: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.bodies.append(request.read())
            return httpx.Response(201, json={"notices": self.notices} if self.notices else {})
        end = {"state": "completed", "exit_code": 0, "ended_by": "exit"}
        text = f"id: 1-1\nevent: end\ndata: {json.dumps(end)}\n\n"
        return httpx.Response(200, stream=httpx.ByteStream(text.encode()))

    @property
    def files(self) -> list[str]:
        """The files of the archive that came last."""
        body = self.bodies[-1]
        start = body.index(b"\r\n\r\n", body.index(b'name="source"')) + 4
        with tarfile.open(fileobj=io.BytesIO(body[start:])) as archive:
            return sorted(member.name for member in archive if not member.isdir())


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    agent = Agent()

    def connect(arguments: object) -> Client:
        client = Client(Target((Endpoint("http://a", "t"),)))
        client._http = httpx.Client(transport=httpx.MockTransport(agent))
        return client

    monkeypatch.setattr("chorus.ctl.cli._connect", connect)
    return agent


def test_credentials_stay_behind_and_are_named(
    tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*LEFT_OUT, *SENT):
        place(tmp_path, name)
    assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
    assert agent.files == sorted(SENT)
    said = capsys.readouterr().err
    assert [name for name in LEFT_OUT if f"left out {name}: " not in said] == []
    assert "--include-secrets sends it" in said
    assert main(["run", "--include-secrets", "--dir", str(tmp_path), "--", "true"]) == 0
    assert agent.files == sorted((*LEFT_OUT, *SENT))
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "secret", "plain"), BY_CONTENT)
def test_what_is_in_a_file_decides_where_its_name_does_not(
    tmp_path: Path, name: str, secret: str, plain: str
) -> None:
    place(tmp_path, name, secret)
    assert [each.file for each in credentials.credentials(tmp_path, [name])] == [name]
    place(tmp_path, name, plain)
    assert credentials.credentials(tmp_path, [name]) == []


def test_the_folder_itself_may_be_one_of_credentials(tmp_path: Path) -> None:
    for folder, name in ((".ssh", "id_work"), (".aws", "credentials"), (".config/gcloud", "x/y.db")):
        place(tmp_path, f"{folder}/{name}")
        assert [each.file for each in credentials.credentials(tmp_path / folder, [name])] == [name]


def test_a_link_to_a_credential_stays_behind_with_it(tmp_path: Path, agent: Agent) -> None:
    place(tmp_path, ".env")
    place(tmp_path, "a")
    (tmp_path / "settings").symlink_to(".env")
    (tmp_path / "b").symlink_to("a")
    assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
    assert agent.files == ["a", "b"]


def test_findings_in_other_files_are_warnings_and_stop_nothing(
    tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path, "src/a.py", f"import os\nTOKEN = '{TOKEN}'\nAGAIN = '{TOKEN}'\n")
    place(tmp_path, "odd\x1b[31m", TOKEN)
    assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
    assert "src/a.py" in agent.files
    said = capsys.readouterr().err
    assert said.count("src/a.py:2 is sent and looks like a secret (github-token)") == 1
    assert TOKEN not in said
    assert "\x1b" not in said


def test_json_carries_both_lists(tmp_path: Path, agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path, ".env")
    place(tmp_path, "a.py", TOKEN)
    assert main(["run", "--json", "--dir", str(tmp_path), "--", "true"]) == 0
    first, *_ = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "id": None,
        "event": "packed",
        "data": {
            "left_out": [{"file": ".env", "why": "variables of an environment"}],
            "findings": [{"file": "a.py", "line": 1, "rule": "github-token"}],
        },
    }


def test_nothing_is_sent_before_it_is_said(
    tmp_path: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path, ".env")
    said: list[str] = []
    submit = Client.submit

    def note(self: Client, *arguments: Any) -> dict[str, Any]:
        said.append(capsys.readouterr().err)
        return submit(self, *arguments)

    monkeypatch.setattr(Client, "submit", note)
    assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
    assert "left out .env" in said[0]


def task(*words: str) -> dict[str, Any]:
    return task_of(build_parser().parse_args(["run", *words, "--", "true"]))


def test_secrets_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "from here")
    place(tmp_path, "a=b", "in a file\n")
    place(tmp_path, "key", "two\nlines\r\n")
    made = task(
        "--secret", "HERE", "--secret", f"F@{tmp_path / 'a=b'}", "--secret", f"KEY@{tmp_path / 'key'}"
    )
    assert made["secrets"] == {"HERE": "from here", "F": "in a file", "KEY": "two\nlines"}
    assert made["env"] == {}


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("NAME=tell-nobody@x", "export NAME and give --secret NAME"),
        ("NAME=", "--secret NAME@FILE"),
        ("NOT_THERE", "export it first"),
        ("@file", "expected NAME"),
        ("NAME@", "expected NAME"),
        ("NAME@/nowhere/at/all", "No such file"),
    ],
)
def test_a_secret_is_refused_with_the_remedy(words: str, remedy: str) -> None:
    with pytest.raises(CtlError, match=remedy) as refused:
        task("--secret", words)
    assert refused.value.code == USAGE
    assert "tell-nobody" not in str(refused.value)


def test_files_that_are_no_secrets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    for name, remedy in (("binary", "not UTF-8"), ("large", "at most 32768 bytes")):
        with pytest.raises(CtlError, match=remedy):
            task("--secret", f"S@{tmp_path / name}")


def test_what_the_agent_says_of_secrets_is_shown(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.notices = ["env.TOKEN: holds what looks like a secret (rule x); it was sealed and moved to secrets"]
    assert main(["run", "--env", "TOKEN=x", "--", "true"]) == 0
    assert f"chorusctl: {agent.notices[0]}\n" in capsys.readouterr().err
