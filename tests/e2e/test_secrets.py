"""Secrets stay where they belong: planted, used, and then looked for everywhere."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from crawl import Reader, crawl, get_routes
from running_lab import Lab, eventually

pytestmark = pytest.mark.e2e

PLANTED_TOKEN = "hs_" + "planted-token-of-a-tenant-" * 2
PLANTED_SECRET = "planted-webhook-secret-0123456789"
PLANTED_PATH = "planted-path-of-a-webhook"
WRONG = "planted-but-wrong-" * 3


@pytest.fixture(scope="module")
def used(lab: Lab) -> Iterator[Lab]:
    """The shared lab after every secret was used, rightly and wrongly."""
    hook = f"http://127.0.0.1:{lab.port('consumer')}/hear/{PLANTED_PATH}"
    with closing(Reader(lab.client.url, lab.client.token)) as admin:
        wanted = {"role": "operator", "project": "blue", "token": PLANTED_TOKEN}
        assert admin.call("PUT", "/api/v1/tokens/planted", wanted)[0] == 200
        body = {"url": hook, "secret": PLANTED_SECRET, "key_id": "lab-1", "project": "blue"}
        assert admin.call("PUT", "/api/v1/subscriptions/planted", body)[0] == 201
        # Refused, and not sent back either.
        assert admin.call("PUT", "/api/v1/tokens/planted", wanted | {"token": WRONG})[0] == 422
        assert admin.call("PUT", "/api/v1/subscriptions/planted", body | {"secret": WRONG + " "})[0] == 422
        assert (
            admin.call("PUT", "/api/v1/subscriptions/planted", body | {"url": f"http://{WRONG}@x/"})[0] == 422
        )
        guest = lab.service("guest-n1-a")
        assert guest is not None
        lab.kill(guest)
        eventually(lambda: PLANTED_PATH in (lab.directory / "heard.jsonl").read_text(), 10, "it was told")
        with closing(Reader(lab.client.url, WRONG)) as stranger:
            assert stranger.call("GET", "/api/v1/faults")[0] == 401
        yield lab
        assert admin.call("DELETE", "/api/v1/subscriptions/planted")[0] == 204
        assert admin.call("DELETE", "/api/v1/tokens/planted")[0] == 204


def secrets_of(lab: Lab) -> dict[str, str]:
    """Every secret by its name: the lab's own and the planted ones."""
    kept = lab.secrets
    found = {"admin_token": kept["admin_token"], "webhook_secret": kept["webhook_secret"]}
    for section in ("nats", "projects"):
        found |= {f"{section}.{name}": secret for name, secret in kept[section].items()}
    planted = {"token": PLANTED_TOKEN, "secret": PLANTED_SECRET, "wrong": WRONG}
    assert len(found) == 9
    return found | {f"planted.{name}": secret for name, secret in planted.items()}


def found_in(text: bytes, secrets: dict[str, str]) -> set[str]:
    """The names of the secrets in a text."""
    return {name for name, secret in secrets.items() if secret.encode() in text}


def journal_rows(lab: Lab) -> bytes:
    """Every value of the table journal."""
    with closing(sqlite3.connect(lab.directory / "server" / "homeostat.db")) as store:
        rows = store.execute("SELECT * FROM journal").fetchall()
    assert any("SubscriptionCreated" in map(str, row) for row in rows)
    assert any("TokenIssued" in map(str, row) for row in rows)
    return repr(rows).encode()


@pytest.mark.seed("order no secret in journal, log, report: some are planted and looked for")
def test_no_secret_is_in_the_journal(used: Lab) -> None:
    rows = journal_rows(used)
    assert not found_in(rows, secrets_of(used))
    assert PLANTED_PATH.encode() not in rows


@pytest.mark.seed("order tokens are kept as hashes only; a signing secret only where notices are signed")
def test_the_databases_files_hold_no_token_and_no_password(used: Lab) -> None:
    secrets = secrets_of(used)
    server = b"".join(path.read_bytes() for path in (used.directory / "server").glob("homeostat.db*"))
    assert found_in(server, secrets) == {"webhook_secret", "planted.secret"}, "these sign notices"
    for path in used.directory.glob("hosts/*/observations.db*"):
        assert not found_in(path.read_bytes(), secrets), path


@pytest.mark.seed("order no secret in a log")
def test_no_secret_is_in_a_log_or_in_what_was_heard(used: Lab) -> None:
    files = [*used.directory.glob("logs/*"), *used.directory.glob("hosts/*/logs/*")]
    files += [used.directory / "heard.jsonl", used.directory.parent / "up.out"]
    assert len(files) > 15
    assert any(path.name == "server.log" and path.stat().st_size for path in files)
    for path in files:
        assert not found_in(path.read_bytes(), secrets_of(used)), path


def test_files_with_secrets_are_for_their_owner_only(used: Lab) -> None:
    secrets = secrets_of(used)
    holding = [
        path
        for path in used.directory.rglob("*")
        if path.is_file() and path.stat().st_size < 2**20 and found_in(path.read_bytes(), secrets)
    ]
    assert {path.name for path in holding} >= {
        "credentials.json",
        "client.json",
        "nats.conf",
        "nats.password",
    }
    assert {path.stat().st_mode & 0o077 for path in holding} == {0}


@pytest.mark.seed("order no secret in any answer of the API")
def test_no_secret_is_in_any_answer(used: Lab) -> None:
    secrets = secrets_of(used)
    with closing(Reader(used.client.url, used.client.token)) as admin:
        routes = get_routes(admin.get("/api/v1/openapi.json"))
        faults = [each["id"] for each in admin.get("/api/v1/faults")["items"]]
        created = json.loads(admin.call("GET", "/api/v1/subscriptions/planted")[1])
        answers = list(crawl(admin, routes, [*faults, "planted", "on-call", "n1", *map(str, range(1, 60))]))
    assert PLANTED_PATH in created["url"], "its owner may read where it leads"
    assert sum(each.status == 200 for each in answers) > 50
    for answer in answers:
        assert not found_in(answer.text.encode(), secrets), answer


@pytest.mark.seed("order no secret in what the command line prints")
def test_no_secret_is_printed(used: Lab) -> None:
    secrets, state = secrets_of(used), used.directory
    with closing(Reader(used.client.url, used.client.token)) as admin:
        fault = admin.get("/api/v1/faults")["items"][0]["id"]
    here = ("--dir", str(state))
    for words in (
        ("status", *here),
        ("explain", fault, *here),
        ("fault", "ls", *here),
        ("subscription", "ls", "--json", *here),
        ("subscription", "show", "planted", *here),
        ("node", "ls", "--json", *here),
        ("resource", "show", "guest-n1-a", *here),
        ("config", "check", str(state / "server" / "server.yaml")),
        ("config", "check", str(state / "hosts" / "n1" / "node.yaml")),
    ):
        shown = subprocess.run(
            [sys.executable, "-m", "homeostat.cli", *words], capture_output=True, timeout=120, check=False
        )
        assert shown.returncode in (0, 1), shown
        assert len(shown.stdout) > 50, shown
        assert not found_in(shown.stdout + shown.stderr, secrets), shown


@pytest.mark.seed("order no secret on a command line or in an environment that others could read")
def test_no_process_carries_a_secret(used: Lab) -> None:
    secrets, seen = secrets_of(used), 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        seen += str(used.directory).encode() in command + environment
        assert not found_in(command, secrets), command
        assert not found_in(environment, secrets), command
    assert seen >= 18
