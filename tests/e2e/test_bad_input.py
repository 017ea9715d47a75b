"""Bad input from outside: one clear line each, nothing lost. On running labs and a running server."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from crawl import Reader
from nats_voice import Voice
from running_lab import Lab, choose_ports, eventually, running

from homeostat.contracts.wire import MESSAGE_BYTES_MAX
from real_parts import NatsServer, free_port
from small_disk import fill, small_disk

pytestmark = pytest.mark.e2e

HUGE = 2**70


def an_event(lab: Lab) -> dict[str, Any]:
    """What n1 would say next if a guest of it came up: right in every part."""
    node = lab.get("/nodes/n1")
    level = {
        "resource": "guest-n1-a",
        "kind": "guest",
        "owner": "blue",
        "agent": "ocf:homeostat:process",
        "state": "up",
        "reason": "it is",
        "at_ns": 1_700_000_000_000_000_000,
        "seq": node["observations"] + 1,
        "pid": None,
    }
    transition = {"level": level, "mono_ns": 5, "intended": None, "finished": None}
    return {"host": "n1", "boot": node["boot"], "sent_mono_ns": 6, "first": 1, "transitions": [transition]}


def malformed(lab: Lab) -> Iterator[tuple[str, bytes, str]]:
    """(last word of the subject, body, what the log line must say)."""
    beat = {"host": "n1", "boot": "b", "incarnation": "i", "seq": 1, "digest": "d"}

    def bent(**changes: object) -> bytes:
        return json.dumps(beat | changes).encode()

    yield "heartbeat", b"\x00\xff garbage", "JSON"
    yield "heartbeat", b"", "JSON"
    yield "heartbeat", b"[" * 100_000, "JSON"
    yield "heartbeat", bent(host="n2"), "Heartbeat.host: 'n2'"
    yield "heartbeat", bent(surprise=1), "Heartbeat.surprise"
    yield "heartbeat", json.dumps(beat | {"x\nserver is fine \x1b[31m": 1}).encode(), "Heartbeat"
    yield "heartbeat", bent(seq="seven"), "Heartbeat.seq: 'seven'"
    yield "heartbeat", bent(seq=HUGE), "Heartbeat.seq"
    yield "heartbeat", bent(boot="a\x00b"), "Heartbeat.boot"
    yield "goodbye", b'{"host":"n2","incarnation":"i"}', "Goodbye.host"
    yield "levels", b'{"host":"n1"}', "Snapshot.boot"
    yield "observations", b" " * (MESSAGE_BYTES_MAX + 1), f"{MESSAGE_BYTES_MAX + 1} bytes"
    for path, value, says in (
        (("host",), "n2", "Observations.host"),
        (("first",), -1, "first"),
        (("sent_mono_ns",), HUGE, "sent_mono_ns"),
        (("transitions", 0, "level", "state"), "exploded", "state: 'exploded'"),
        (("transitions", 0, "level", "at_ns"), HUGE, "at_ns"),
        (("transitions", 0, "level", "at_ns"), -HUGE, "at_ns"),
        (("transitions", 0, "level", "seq"), HUGE, "seq"),
        (("transitions", 0, "level", "pid"), HUGE, "pid"),
        (("transitions", 0, "level", "reason"), "a\x00b", "reason"),
        (("transitions", 0, "level", "resource"), "", "resource"),
        (("transitions", 0, "level", "owner"), "", "owner"),
        (("transitions", 0, "level", "extra"), 1, "extra"),
        (("transitions", 0, "mono_ns"), HUGE, "mono_ns"),
        (("transitions", 0, "intended"), {"action": "a"}, "intended"),
        (
            ("transitions", 0, "intended"),
            {"action": "a", "verb": "start", "deadline_s": float("inf"), "reason": ""},
            "deadline_s",
        ),
    ):
        event: Any = an_event(lab)
        place = event
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        yield "observations", json.dumps(event).encode(), says


@pytest.mark.seed("order malformed event: one clear line each, nothing lost")
def test_what_a_node_says_wrongly_is_one_line_each_and_nothing_else(lab: Lab) -> None:
    log, password = lab.directory / "logs" / "server.log", lab.secrets["nats"]["n1"]
    server, told = lab.child("server"), len(lab.told("blue", "resource/guest-n1-a"))
    resources = lab.get("/resources")
    before = log.stat().st_size
    messages = list(malformed(lab))

    def lines() -> list[str]:
        with log.open("rb") as file:
            file.seek(before)
            return file.read().decode().splitlines()

    with Voice(lab.port("nats"), "n1", password) as voice:
        for kind, body, _ in messages:
            voice.publish(f"node.n1.{kind}", body)
        assert voice.flush() == []
        eventually(lambda: len(lines()) >= len(messages), 10, f"{len(messages)} lines")
        voice.publish("node.n1.heartbeat", b"the last")
        assert voice.flush() == []
    eventually(lambda: len(lines()) > len(messages), 10, "the last line")
    for line, (kind, _, says) in zip(lines(), messages, strict=False):
        assert "message refused" in line
        assert f"subject=node.n1.{kind}" in line
        assert says in line, (says, line)
        assert len(line) < 500, line
        assert line.isprintable(), line
    assert len(lines()) == len(messages) + 1, lines()
    # As another node, or with more than NATS takes: refused before it reaches us.
    with Voice(lab.port("nats"), "n1", password) as voice:
        voice.publish("node.n2.heartbeat", b"{}")
        assert "Permissions Violation" in voice.flush()[0]
        voice.publish("node.n1.heartbeat", b" " * (2 * 1024 * 1024))
        assert voice.flush()[-1] in ("-ERR 'Maximum Payload Violation'", "(closed)")
    assert lab.child("server") == server
    assert lab.get("/resources") == resources
    # A real outage after all that is told as ever.
    guest = lab.service("guest-n1-a")
    assert guest is not None
    lab.kill(guest)
    eventually(lambda: len(lab.told("blue", "resource/guest-n1-a")) == told + 2, 10, "blue was told")
    assert len(lines()) == len(messages) + 1, lines()


@pytest.mark.seed("order malformed event: what the server says is checked by the node, too")
def test_what_a_server_says_wrongly_does_not_stop_a_node(lab: Lab) -> None:
    node, log = lab.child("node-n2"), lab.directory / "logs" / "node-n2.log"
    before = log.stat().st_size
    with Voice(lab.port("nats"), "server", lab.secrets["nats"]["server"]) as voice:
        for body in (
            b"garbage",
            b'{"epoch": 1180591620717411303424, "reason": "x"}',
            b'{"epoch":0,"reason":"old"}',
        ):
            voice.publish("to.n2.resync", body)
        voice.publish("to.n2.acknowledged", b'{"boot":"other","seq":1,"epoch":' + str(HUGE).encode() + b"}")
        assert voice.flush() == []
    eventually(lambda: log.read_bytes()[before:].count(b"\n") >= 4, 10, "a line each")
    assert lab.child("node-n2") == node
    guest, told = lab.service("guest-n2-b"), len(lab.told("green", "resource/guest-n2-b"))
    assert guest is not None
    lab.kill(guest)
    eventually(lambda: len(lab.told("green", "resource/guest-n2-b")) == told + 2, 10, "green was told")


def error_of(answer: tuple[int, str]) -> dict[str, Any]:
    """The one line of a refusal."""
    error: dict[str, Any] = json.loads(answer[1])["error"]
    assert "\n" not in error["message"]
    return error


@pytest.mark.seed("order oversized body: 413, whether its length is declared or not")
@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversized_body_is_refused(lab: Lab, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lab.port("api"), timeout=20)
    connection.putrequest("PUT", "/api/v1/tokens/large")
    connection.putheader("Authorization", f"Bearer {lab.client.token}")
    connection.putheader("Content-Type", "application/json")
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(17):
            connection.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    else:
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()
    with closing(connection):
        answer = connection.getresponse()
        told = error_of((answer.status, answer.read().decode()))
    assert answer.status == 413
    assert "longer than 1048576 bytes" in told["message"]


@pytest.mark.seed("order unknown field, wrong token, foreign project: one clear line each")
def test_refusals_of_the_api_say_what_is_wrong(lab: Lab) -> None:
    hook = f"http://127.0.0.1:{lab.port('consumer')}/hear/x"
    tokens, guest = lab.secrets["projects"], lab.service("guest-n3-a")
    assert guest is not None
    lab.kill(guest)
    eventually(lambda: lab.told("blue", "resource/guest-n3-a"), 10, "blue was told")
    with closing(Reader(lab.client.url, lab.client.token)) as admin:
        refused = admin.call(
            "PUT", "/api/v1/tokens/x", {"role": "viewer", "project": "blue", "colour": "red"}
        )
        assert (refused[0], error_of(refused)["field"]) == (422, "colour")
        refused = admin.call("GET", "/api/v1/faults?stat=open")
        assert (refused[0], error_of(refused)["field"]) == (422, "stat")
        assert "known here: kind, limit," in error_of(refused)["message"]
        faults = {row["owner"]: row["id"] for row in admin.get("/api/v1/faults")["items"]}
    for token in ("hs_wrong", "", "a" * 9000):
        with closing(Reader(lab.client.url, token or " ")) as stranger:
            refused = stranger.call("GET", "/api/v1/faults")
            assert (refused[0], error_of(refused)["type"]) == (401, "not_authenticated"), token
    with closing(Reader(lab.client.url, tokens["green"])) as green:
        refused = green.call("POST", "/api/v1/subscriptions", {"name": "g", "url": hook, "project": "blue"})
        assert refused[0] == 403
        assert "green only" in error_of(refused)["message"]
        for method, path, body in (
            ("GET", "/api/v1/subscriptions/blue", None),
            ("DELETE", "/api/v1/subscriptions/blue", None),
            ("PUT", "/api/v1/subscriptions/blue", {"url": hook}),
            ("GET", f"/api/v1/faults/{faults['blue']}", None),
            ("GET", f"/api/v1/explain/{faults['blue']}", None),
        ):
            assert green.call(method, path, body)[0] == 404, (method, path)
        assert green.call("GET", "/api/v1/tokens")[0] == 403


@pytest.mark.seed("order hostile webhook URL: one clear line each")
def test_hostile_webhook_urls_are_refused(lab: Lab) -> None:
    api, nats = lab.port("api"), lab.port("nats")
    hostile = (
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://100.100.100.200/",
        f"http://127.0.0.1:{api}/api/v1/tokens",
        f"http://localhost:{api}/",
        f"http://[::ffff:127.0.0.1]:{api}/",
        f"http://0.0.0.0:{api}/",
        f"http://127.0.0.1:{nats}/",
        f"http://localhost:{nats}/",
        "http://192.168.1.1/",
        "http://example.invalid/",
        f"http://blue:secret@127.0.0.1:{api}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/",
        "http://127.0.0.1:9/\r\nX-Evil: 1",
        "http://" + "a" * 3000,
    )
    with closing(Reader(lab.client.url, lab.secrets["projects"]["blue"])) as blue:
        for url in hostile:
            refused = blue.call("POST", "/api/v1/subscriptions", {"name": "hostile", "url": url})
            assert (refused[0], error_of(refused)["field"]) == (422, "url"), (url, refused)
            assert len(error_of(refused)["message"]) < 500
            assert "secret" not in refused[1]
        names = [row["name"] for row in blue.get("/api/v1/subscriptions")["items"]]
    assert "hostile" not in names


def homeostat(*words: str) -> subprocess.CompletedProcess[str]:
    """A command that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "homeostat.cli", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def up(directory: Path) -> subprocess.CompletedProcess[str]:
    """A start that is refused."""
    return homeostat("up", "--dir", str(directory))


@pytest.mark.seed("order corrupt state file: one clear line, nothing overwritten")
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("lab.json", "{ half a"),
        ("credentials.json", '{"version": 1}'),
        *(
            pytest.param(name, body, marks=pytest.mark.slow)
            for name, body in (
                *(("lab.json", body) for body in ("[1, 2]", '{"version": 1}', "\x00\x01")),
                *(("credentials.json", body) for body in ("{ half a", "[1, 2]", "\x00\x01")),
            )
        ),
    ],
)
def test_up_refuses_corrupt_ports_and_secrets_and_leaves_them(tmp_path: Path, name: str, body: str) -> None:
    file = tmp_path / "state" / name
    file.parent.mkdir()
    file.write_text(body)
    refused = up(file.parent)
    assert refused.returncode == 6, refused
    assert str(file) in refused.stderr
    assert "move it away" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert file.read_text() == body


@pytest.mark.seed("order corrupt state file: what can be made anew is set aside, what cannot stops the start")
@pytest.mark.slow
def test_up_sets_caches_aside_and_never_overwrites_the_journal(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state) as lab:
        lab.stop()
    rubbish = b"not a database, not JSON either\n" * 200
    children, observations = state / "children.json", state / "hosts" / "n1" / "observations.db"
    for file in (children, observations):
        file.write_bytes(rubbish)
    with running(state) as lab:
        for file in (children, observations):
            aside = list(file.parent.glob(f"{file.name}.corrupt-*"))
            assert [each.read_bytes() for each in aside] == [rubbish], file
        assert lab.output().count("children.json: not readable as JSON") == 1
        log = (state / "logs" / "node-n1.log").read_text()
        assert log.count("observations were unreadable, begun anew") == 1
        guest = lab.service("guest-n1-a")
        assert guest is not None
        lab.kill(guest)
        eventually(
            lambda: lab.told("blue", "resource/guest-n1-a")[-2:] == ["raised", "cleared"], 15, "blue heard"
        )
        lab.stop()
    journal = state / "server" / "homeostat.db"
    journal.write_bytes(rubbish)
    refused = homeostat("run", "server", "--config", str(journal.with_name("server.yaml")))
    assert refused.returncode == 6, refused
    assert f"{journal}: is not a sound SQLite database" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert journal.read_bytes() == rubbish


@pytest.mark.seed("order corrupt state file: `up` says which, and nothing is overwritten")
@pytest.mark.slow
def test_up_with_a_corrupt_journal_says_so_and_leaves_it(tmp_path: Path) -> None:
    journal = tmp_path / "state" / "server" / "homeostat.db"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"rubbish\n" * 500)
    choose_ports(tmp_path / "state")
    refused = up(tmp_path / "state")
    assert refused.returncode == 1, refused
    (said,) = [line for line in refused.stdout.splitlines() if str(journal) in line]
    assert said.startswith(f"homeostat up: server: {journal}: is not a sound SQLite database")
    assert said.endswith("restore it or move it away")
    assert "Traceback" not in refused.stdout + refused.stderr
    assert journal.read_bytes() == b"rubbish\n" * 500


@pytest.mark.seed("order port taken: one line that names it, exit code 3")
@pytest.mark.slow
def test_a_taken_port_is_named(lab: Lab, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        state = tmp_path / "state"
        state.mkdir()
        (state / "lab.json").write_text(json.dumps({"version": 1, "ports": {"balancer": port}}))
        refused = up(state)
        assert refused.returncode == 3
        assert f"ports.balancer: {port}" in refused.stderr
        assert f"pid {os.getpid()}" in refused.stderr
    # A second server: on the port of the first with a database of its own, and on its database.
    settings = yaml.safe_load((lab.directory / "server" / "server.yaml").read_text())
    first, own = settings["database_url"], f"sqlite:///{tmp_path}/own.db"
    server = str(lab.child("server").pid)
    for database, api_port, says in ((own, lab.port("api"), "api.port"), (first, free_port(), server)):
        settings["database_url"], settings["api"]["port"] = database, api_port
        file = tmp_path / "server.yaml"
        file.write_text(yaml.safe_dump(settings))
        second = homeostat("run", "server", "--config", str(file))
        assert second.returncode == 3, second
        assert says in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1, second.stderr
    assert lab.all_up()


@contextmanager
def server_on(
    disk: Path, folder: Path, nats: NatsServer, log: Path | None = None, *, healthy: bool = True
) -> Iterator[Reader]:
    """A server with all that it keeps on a disk of its own, and its administrator."""
    port = free_port()
    (folder / "admin.token").write_text("hs_" + "a" * 43)
    (folder / "nats.password").write_text("server-secret")
    file = folder / "server.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "state_dir": str(disk),
                "database_url": f"sqlite:///{disk}/homeostat.db",
                "nats": {
                    "url": nats.url,
                    "user": "server",
                    "password_file": str(folder / "nats.password"),
                },
                "api": {"port": port, "admin_token_file": str(folder / "admin.token")},
                "store": {"ballast_bytes": 4 * 1024 * 1024},
            }
        )
    )
    log = log or folder / "server.log"

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "homeostat.server.main", str(file)], stderr=out)
    try:
        eventually(listens, 60, f"the server listens:\n{log.read_text()}")
        with closing(Reader(f"http://127.0.0.1:{port}", "hs_" + "a" * 43)) as admin:
            if healthy:
                eventually(lambda: admin.call("GET", "/healthz")[0] == 200, 10, "healthy")
            yield admin
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.seed("order full disk: read-only with one clear line; nothing acknowledged is lost")
def test_a_full_disk_makes_the_server_read_only_and_loses_nothing(tmp_path: Path, nats: NatsServer) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, server_on(disk, tmp_path, nats) as admin:
        _fill_and_free(disk, admin, tmp_path / "server.log")


@pytest.mark.seed("order full disk: health tells it before anybody wants to write")
def test_a_full_disk_is_told_by_health_even_when_nothing_happens(tmp_path: Path, nats: NatsServer) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk, server_on(disk, tmp_path, nats) as admin:
        fill(disk / "filler")

        def reason() -> str:
            status, text = admin.call("GET", "/healthz")
            return str(json.loads(text)["reason"]) if status == 503 else ""

        eventually(reason, 20, "health says that something is wrong")
        assert reason().startswith(f"{disk}: ")
        assert reason().endswith("the store is read-only until more than 8 MiB are free; make room")
        assert not (disk / "ballast").exists(), "the renewal of the term gave it back"
        (disk / "filler").unlink()
        eventually(lambda: admin.call("GET", "/healthz")[0] == 200, 10, "healthy by itself")
        assert (disk / "ballast").exists()


@pytest.mark.seed("order full disk: the server stays leader, and no log line that cannot be written ends it")
def test_a_server_whose_log_is_on_the_full_disk_too_stays_leader(tmp_path: Path, nats: NatsServer) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        log = disk / "server.log"
        with server_on(disk, tmp_path, nats, log) as admin:
            fill(disk / "filler")

            def health() -> tuple[int, str]:
                status, text = admin.call("GET", "/healthz")
                return status, str(json.loads(text).get("reason", ""))

            eventually(lambda: health()[0] == 503, 20, "health says that something is wrong")
            fill(disk / "filler-2")  # what the ballast gave back is somebody else's now
            for number in range(30):  # each of them is refused, and says so in the log
                status, text = admin.call(
                    "PUT", f"/api/v1/tokens/t-{number}", {"role": "viewer", "project": "p"}
                )
                assert status == 503, text
            eventually(lambda: "MiB free" in health()[1], 20, "one clear line")
            assert admin.get("/api/v1/tokens")["items"], "it can be read all the time"
            (disk / "filler").unlink()
            (disk / "filler-2").unlink()
            eventually(lambda: health()[0] == 200, 20, "healthy by itself")
            status, _ = admin.call("PUT", "/api/v1/tokens/after", {"role": "viewer", "project": "p"})
            assert status == 200
        assert log.read_text().count("leading") == 1, "it never led anew"


@pytest.mark.seed("order full disk: a server that starts on one is read-only until there is room")
def test_a_server_starts_on_a_full_disk(tmp_path: Path, nats: NatsServer) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        with server_on(disk, tmp_path, nats) as admin:
            assert admin.call("PUT", "/api/v1/tokens/before", {"role": "viewer", "project": "p"})[0] == 200
        assert (disk / "ballast").exists()
        fill(disk / "filler")
        with server_on(disk, tmp_path, nats, healthy=False) as admin:
            status, text = admin.call("GET", "/healthz")
            assert (status, "make room" in text) == (503, True)
            names = {row["name"] for row in admin.get("/api/v1/tokens")["items"]}
            assert names == {"admin", "before"}
            (disk / "filler").unlink()
            eventually(lambda: admin.call("GET", "/healthz")[0] == 200, 20, "healthy by itself")
            assert admin.call("PUT", "/api/v1/tokens/after", {"role": "viewer", "project": "p"})[0] == 200


def _fill_and_free(disk: Path, admin: Reader, log: Path) -> None:
    acknowledged: list[str] = []

    def write(name: str) -> int:
        status, text = admin.call("PUT", f"/api/v1/tokens/{name}", {"role": "viewer", "project": "p"})
        if status == 200:
            acknowledged.append(name)
        else:
            assert status == 503, text
            assert "make room" in error_of((status, text))["message"]
        return status

    assert write("before") == 200
    fill(disk / "filler")
    written = 0
    while write(f"during-{written}") == 200:
        written += 1
        assert written < 5000, "the disk is never full"
    assert [write(f"refused-{number}") for number in range(20)] == [503] * 20
    status, text = admin.call("GET", "/healthz")
    assert status == 503
    assert json.loads(text)["status"] == "failing"
    assert "make room" in json.loads(text)["reason"]
    assert log.read_text().count("the store is full") == 1
    assert {row["name"] for row in admin.get("/api/v1/tokens")["items"]} == {"admin", *acknowledged}
    (disk / "filler").unlink()
    eventually(lambda: admin.call("GET", "/healthz")[0] == 200, 10, "healthy by itself")
    assert write("after") == 200
    assert {row["name"] for row in admin.get("/api/v1/tokens")["items"]} == {"admin", *acknowledged}
    assert log.read_text().count("the store is full") == 1
    assert log.read_text().count("the store is writable") == 1
