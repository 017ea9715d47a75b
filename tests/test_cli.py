"""The command line as a program: how fast it starts, what it explains, and with which code it ends."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer.main
import yaml
from click.testing import Result
from typer.testing import CliRunner

from homeostat.cli import app
from homeostat.kernel import terminal
from homeostat.kernel.client import Client
from homeostat.kernel.config import redact
from real_parts import free_port

HOMEOSTAT = Path(sys.executable).with_name("homeostat")
MODULES_MAX = 330
"""Imports are what a start costs; seconds are measured by `bench/start.py`."""
SECRET = "hunter2hunter2"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command, without what this shell says of a server."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("HOMEOSTAT", "COVERAGE"))
    }
    return subprocess.run(
        [str(HOMEOSTAT), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=clean | environment,
    )


class Pretended(http.server.BaseHTTPRequestHandler):
    """Says what a server would say to the path asked for."""

    ANSWERS: ClassVar[dict[str, tuple[int, object]]] = {
        "/api/v1/status": (200, {"version": "1", "standing": "kept", "reason": "", "items": []}),
        "/api/v1/faults?limit=100": (200, {"items": []}),
        "/api/v1/arming": (
            200,
            {"items": [{"component": "recovery", "armed": True}, {"component": "toy", "armed": False}]},
        ),
    }

    def do_GET(self) -> None:
        word = self.path.rpartition("/")[2]
        refusal = {"error": {"type": "x", "message": f"code {word}"}}
        status, body = self.ANSWERS.get(self.path, (int(word) if word.isdigit() else 404, refusal))
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server that answers; the environment that leads to it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pretended) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        url = f"http://127.0.0.1:{listening.server_address[1]}"
        yield {"HOMEOSTAT_URL": url, "HOMEOSTAT_TOKEN": "hs_x"}
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "token"),
    [({}, "hs_administrator"), ({"HOMEOSTAT_TOKEN": "hs_tenant"}, "hs_tenant")],
)
def test_a_token_that_is_given_is_the_one_that_is_used(
    given: dict[str, str], token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "client.json").write_text('{"url": "http://127.0.0.1:1", "token": "hs_administrator"}')
    monkeypatch.delenv("HOMEOSTAT_URL", raising=False)
    monkeypatch.delenv("HOMEOSTAT_TOKEN", raising=False)
    monkeypatch.setenv("HOMEOSTAT_DIR", str(tmp_path))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Client.find() == Client("http://127.0.0.1:1", token)


def test_a_server_without_a_token_is_refused_and_gets_no_other_servers_token(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text('{"url": "http://127.0.0.1:1", "token": "hs_administrator"}')
    ended = run("status", HOMEOSTAT_DIR=str(tmp_path), HOMEOSTAT_URL="http://127.0.0.1:2")
    assert ended.returncode == 2
    assert "HOMEOSTAT_TOKEN: nothing is given; " in ended.stderr


def test_arm_alone_shows_the_components(server: dict[str, str]) -> None:
    said = run("arm", **server).stdout
    assert "recovery   armed: it acts" in said and "toy        not armed: it only observes" in said, said
    assert [row["armed"] for row in json.loads(run("arm", "--json", **server).stdout)["items"]] == [
        True,
        False,
    ]
    assert run("arm", "--off", **server).returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("explain", ""), "nothing is called ''"),
        (("silence", "rm", "../x"), "nothing is called '../x'"),
        (("fault", "ls", "--since", "yesterday"), "2h for two hours ago"),
        (
            ("timeline", "compare", "nofile.json", "f-1"),
            "timeline: 'nofile.json' is not accepted; a fault's id, or a file",
        ),
    ],
)
def test_what_names_nothing_is_said_in_words(
    server: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    ended = run(*words, **server)
    assert ended.returncode != 0 and said in ended.stderr, ended.stderr


@pytest.mark.seed("order start-up under 300 ms CPU")
@pytest.mark.parametrize("words", [("--help",), ("status", "--json"), ("fault", "ls", "--json")])
def test_nothing_heavy_is_imported(server: dict[str, str], words: tuple[str, ...]) -> None:
    code = (
        "import sys, contextlib, homeostat.cli\n"
        f"sys.argv = ['homeostat', *{words!r}]\n"
        "with contextlib.suppress(SystemExit): homeostat.cli.main()\n"
        "heavy = {'fastapi', 'sqlalchemy', 'pydantic_settings', 'uvicorn', 'aiohttp'}\n"
        "heavy |= {'psutil', 'nats', 'alembic', 'pydantic'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "print(len(sys.modules), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | server,
    )
    found, count = ended.stderr.split("\n")[:2]
    assert found == "[]" and int(count) <= MODULES_MAX


def commands() -> list[tuple[str, ...]]:
    """Every command, as the words that lead to it."""
    found: list[tuple[str, ...]] = []

    def visit(command: Any, words: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found.append(words)
        for name, each in (inner or {}).items():
            visit(each, (*words, name))

    visit(typer.main.get_command(app), ())
    return found


def test_the_commands_are_those_that_are_promised() -> None:
    there = {" ".join(words) for words in commands()}
    nouns = {
        f"{noun} {verb}" for noun in ("node", "fault", "resource", "subscription") for verb in ("ls", "show")
    }
    assert there >= nouns | {"up", "run server", "run node", "status", "explain", "config check"}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_is_right(words: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    text = " ".join(command.help.split())
    assert "Example: homeostat " in text, words
    example = shlex.split(text.partition("Example: homeostat ")[2])
    assert tuple(example[: len(words)]) == words
    # What it shows can be parsed by the command that shows it.
    command.make_context(words[-1], example[len(words) :])


def test_help_names_the_exit_codes_that_the_terminal_gives() -> None:
    shown = " ".join(run("--help", COLUMNS="200").stdout.split())
    for code in (
        terminal.BROKEN,
        terminal.BAD_INPUT,
        terminal.NOT_NOW,
        terminal.NOT_FOUND,
        terminal.NOT_ALLOWED,
        terminal.DAMAGED,
    ):
        assert f" {code} " in shown.partition("Exit codes:")[2]


@pytest.mark.seed("order exit codes as documented, one line on stderr")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("explain", "400"), 2, "400"),
        (("explain", "401"), 5, "code 401"),
        (("explain", "403"), 5, "code 403"),
        (("explain", "404"), 4, "code 404"),
        (("explain", "503"), 3, "code 503"),
        (("fault", "show", "no such/thing ü?\n"), 4, "nothing is called 'no such/thing"),
        (("resource", "show", "../status"), 4, "nothing is called '../status'"),
        (("node", "show", "a b"), 4, "a%20b"),
        (("fault", "ls", "--limit", "0"), 2, "--limit"),
        (("no", "such"), 2, "No such command"),
        (("config", "check", "/nowhere/server.yaml"), 2, "/nowhere/server.yaml"),
    ],
)
def test_exit_codes(server: dict[str, str], words: tuple[str, ...], code: int, says: str) -> None:
    ended = run(*words, **server)
    assert ended.returncode == code, ended
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_without_a_server_it_is_not_now(tmp_path: Path) -> None:
    nowhere = run("status", "--dir", str(tmp_path))
    assert nowhere.returncode == 3
    assert "start one with `homeostat up`" in nowhere.stderr
    gone = run("status", HOMEOSTAT_URL=f"http://127.0.0.1:{free_port()}", HOMEOSTAT_TOKEN="hs_x")
    assert gone.returncode == 3
    (tmp_path / "client.json").write_text("[")
    broken = run("status", "--dir", str(tmp_path))
    assert broken.returncode == 6
    assert "client.json" in broken.stderr
    for ended in (nowhere, gone, broken):
        assert len(ended.stderr.strip().splitlines()) == 1


def test_a_proxy_of_the_environment_is_not_used(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    client = Client(server["HOMEOSTAT_URL"], server["HOMEOSTAT_TOKEN"])
    assert client.call("GET", "/status")["standing"] == "kept"


@pytest.mark.seed("order completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    script = run(_HOMEOSTAT_COMPLETE=f"source_{shell}")
    assert script.returncode == 0, script.stderr
    assert "_HOMEOSTAT_COMPLETE" in script.stdout


def test_completion_knows_the_verbs() -> None:
    words = {
        "_HOMEOSTAT_COMPLETE": "complete_bash",
        "COMP_WORDS": "homeostat subscription ",
        "COMP_CWORD": "2",
    }
    assert set(run(**words).stdout.split()) >= {"ls", "show", "create", "rm"}


SERVER = {"state_dir": "/tmp/s", "database_url": f"postgresql+psycopg://me:{SECRET}@db/homeostat"}
NODE = {
    "host": "n1",
    "state_dir": "/tmp/n1",
    "nats": {"url": f"nats://me:{SECRET}@127.0.0.1:4222", "user": "n1", "password_file": "/etc/n1.password"},
    "runner": {
        "resources": [
            {
                "id": "db",
                "agent": "ocf:homeostat:process",
                "owner": "blue",
                "parameters": {"command": f"db --password {SECRET}"},
            }
        ]
    },
}


def check(path: Path, settings: object, *words: str) -> Result:
    """`config check`, in this process: loading all settings takes a second."""
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    ended = CliRunner().invoke(app, ["config", "check", str(path), *words])
    assert SECRET not in ended.output, ended.output
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended


@pytest.mark.seed("order homeostat config check: merged settings, secrets hidden")
def test_config_check_shows_the_merged_settings_without_secrets(tmp_path: Path) -> None:
    good = check(tmp_path / "server.yaml", SERVER, "--json")
    assert good.exit_code == 0, good.stderr
    shown = json.loads(good.stdout)
    assert shown["kind"] == "server"
    assert shown["settings"]["api"]["port"] == 8700, "a default"
    assert shown["settings"]["database_url"] == "postgresql+psycopg://me:(hidden)@db/homeostat"
    assert "good settings of a server" in check(tmp_path / "server.yaml", SERVER).stdout
    good = check(tmp_path / "node.yaml", NODE, "--json")
    assert good.exit_code == 0, good.stderr
    shown = json.loads(good.stdout)
    assert shown["kind"] == "node"
    assert shown["settings"]["heartbeat_s"] == 1.0, "a default"
    assert shown["settings"]["nats"]["password_file"] == "/etc/n1.password"
    assert shown["settings"]["runner"]["resources"][0]["parameters"] == {"command": "(hidden)"}


@pytest.mark.seed("order leases: push on and polling off is warned of")
def test_config_check_warns_of_what_is_likely_not_meant(tmp_path: Path) -> None:
    push_alone = {**SERVER, "leases": {"physical:host": {"enable_polling_monitor": False}}}
    warned = check(tmp_path / "server.yaml", push_alone)
    assert warned.exit_code == 0
    assert "# warning: leases.physical:host: push is on and polling is off" in warned.stdout
    assert yaml.safe_load(warned.stdout)["leases"]["physical_host"]["enable_polling_monitor"] is False
    assert len(json.loads(check(tmp_path / "server.yaml", push_alone, "--json").stdout)["warnings"]) == 1
    assert json.loads(check(tmp_path / "server.yaml", SERVER, "--json").stdout)["warnings"] == []


@pytest.mark.seed("order homeostat config check: the first field that is wrong, in one line")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            SERVER | {"api": {"prot": 1}},
            "api.prot: 1 is not accepted; there is no such setting; known here: admin_tok",
        ),
        (SERVER | {"api": {"port": 70000}}, "api.port: 70000"),
        (SERVER | {"api": {"token": SECRET}}, "api.token: '(hidden)'"),
        (SERVER | {"nats": {"password": SECRET}}, "nats.password: '(hidden)'"),
        (SERVER | {"database_url": f"mysql://me:{SECRET}@db/x"}, "database_url: 'mysql://me:(hidden)@db/x'"),
        ({"database_url": SERVER["database_url"]}, "state_dir: nothing"),
        (SERVER | {"log_level": {"secret": SECRET}}, "log_level: 'a dict'"),
        (NODE | {"heartbeat": 1}, "heartbeat: 1 is not accepted; there is no such"),
        (NODE | {"host": "n 1"}, "host: 'n 1'"),
        (NODE | {"nats": {"url": "nats://x", "user": "n1", "password": SECRET}}, "nats."),
        ({"host": "n1", "nats": NODE["nats"]}, "state_dir: nothing"),
        ("[1, 2]", "it must be a mapping with"),
        ("a: [", "YAML"),
        ("host: [", "YAML"),
        ("", "it must be a mapping with"),
    ],
)
def test_config_check_names_the_field_that_is_wrong(tmp_path: Path, settings: object, says: str) -> None:
    refused = check(tmp_path / "some.yaml", settings)
    assert refused.exit_code == 2, refused.output
    assert says in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://me:pass@h:1", "nats://me:(hidden)@h:1"),
        ("postgresql+psycopg://me:p@ss/w@h/db", "postgresql+psycopg://me:(hidden)@h/db"),
        (
            "postgresql+psycopg://h/db?user=me&password=p&x=1",
            "postgresql+psycopg://h/db?user=me&password=(hidden)&x=1",
        ),
        ("sqlite:////var/lib/homeostat.db", "sqlite:////var/lib/homeostat.db"),
    ],
)
def test_no_password_of_a_url_is_shown(url: str, shown: str) -> None:
    assert redact("nats.url", url) == shown
