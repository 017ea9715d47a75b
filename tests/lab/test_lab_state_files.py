"""Ports and secrets: made once, kept, private, and never overwritten when they cannot be read."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_waiting import free_port

from homeostat.kernel.errors import AlreadyRunning, CorruptState
from homeostat.kernel.processes import identify
from homeostat.lab.children import read_children, write_children
from homeostat.lab.preparation import PortClaims, is_free, listens, load_or_create_credentials, settle_ports

USERS, PROJECTS = ("server", "n1"), ("blue",)


def nobody(_pid: int) -> bool:
    return False


def taken() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.fixture
def claims() -> Iterator[PortClaims]:
    with PortClaims() as held:
        yield held


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    first = load_or_create_credentials(path, users=USERS, projects=PROJECTS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.admin_token.startswith("hs_")
    assert len(first.admin_token) > 40
    secrets = [first.admin_token, first.webhook_secret, *first.nats.values(), *first.projects.values()]
    assert len(set(secrets)) == 5
    assert load_or_create_credentials(path, users=USERS, projects=PROJECTS) == first
    assert not any(secret in repr(first) for secret in secrets)


def test_a_new_host_gets_a_secret_and_the_others_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    first = load_or_create_credentials(path, users=USERS, projects=PROJECTS)
    second = load_or_create_credentials(path, users=[*USERS, "n9"], projects=PROJECTS)
    assert {name: second.nats[name] for name in first.nats} == first.nats
    assert second.nats["n9"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"admin_token": "short", "webhook_secret": "0123456789abcdef", "nats": {}, "projects": {}}',
        '{"admin_token": "0123456789abcdef", "webhook_secret": "0123456789abcdef", "nats": []}',
        '{"admin_token": "0123456789abcdef", "webhook_secret": "0123456789abcdef", "nats": {"n1": 7}}',
    ],
)
def test_corrupt_secrets_are_one_line_and_stay_as_they_are(tmp_path: Path, body: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(body)
    with pytest.raises(CorruptState) as caught:
        load_or_create_credentials(path, users=USERS, projects=PROJECTS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == body


def test_ports_are_kept(tmp_path: Path, claims: PortClaims) -> None:
    path = tmp_path / "lab.json"
    preferred = {"api": free_port(), "nats": free_port()}
    first = settle_ports(path, preferred, claims, ours=nobody, renew=False)
    assert first == preferred
    assert path.stat().st_mode & 0o777 == 0o600
    other = {"api": free_port(), "nats": free_port()}
    assert settle_ports(path, other, claims, ours=nobody, renew=False) == first


def test_at_the_first_start_a_taken_port_is_avoided(tmp_path: Path, claims: PortClaims) -> None:
    with taken() as listener:
        wanted = listener.getsockname()[1]
        ports = settle_ports(
            tmp_path / "lab.json", {"api": wanted, "nats": wanted}, claims, ours=nobody, renew=False
        )
    assert wanted not in ports.values()
    assert len(set(ports.values())) == 2
    assert all(is_free(port) and port < 32_768 for port in ports.values())


def test_a_kept_port_that_is_taken_is_named_with_its_owner_and_the_remedy(
    tmp_path: Path, claims: PortClaims
) -> None:
    path = tmp_path / "lab.json"
    with taken() as listener:
        port = listener.getsockname()[1]
        body = json.dumps({"version": 1, "ports": {"api": port}})
        path.write_text(body)
        with pytest.raises(AlreadyRunning) as caught:
            settle_ports(path, {"api": port}, claims, ours=nobody, renew=False)
        for expected in ("ports.api", str(port), f"pid {os.getpid()}", "--renew-ports"):
            assert expected in str(caught.value)
        assert path.read_text() == body
        assert settle_ports(path, {"api": port}, claims, ours=nobody, renew=True)["api"] != port


def test_a_port_held_by_our_own_service_is_no_conflict(tmp_path: Path, claims: PortClaims) -> None:
    path = tmp_path / "lab.json"
    with taken() as listener:
        port = listener.getsockname()[1]
        path.write_text(json.dumps({"version": 1, "ports": {"web-n1": port}}))
        ports = settle_ports(path, {"web-n1": port}, claims, ours=lambda pid: pid == os.getpid(), renew=True)
    assert ports == {"web-n1": port}


def test_labs_that_choose_at_the_same_time_choose_different_ports(tmp_path: Path, claims: PortClaims) -> None:
    preferred = {"api": free_port(), "nats": free_port()}
    first = settle_ports(tmp_path / "a.json", preferred, claims, ours=nobody, renew=False)
    with PortClaims() as others:  # the first lab's children do not listen yet
        second = settle_ports(tmp_path / "b.json", preferred, others, ours=nobody, renew=False)
        assert first == preferred
        assert not set(first.values()) & set(second.values())
    with PortClaims() as others:
        with pytest.raises(AlreadyRunning, match="taken by another `homeostat up`"):
            settle_ports(tmp_path / "a.json", preferred, others, ours=nobody, renew=False)
        renewed = settle_ports(tmp_path / "a.json", preferred, others, ours=nobody, renew=True)
        assert not set(first.values()) & set(renewed.values())


def test_a_claim_ends_with_its_holder(claims: PortClaims) -> None:
    port = free_port()
    with PortClaims() as before:
        assert before.take(port)
        assert not claims.take(port)
    assert claims.take(port)


def test_only_the_process_that_listens_is_ready() -> None:
    with taken() as listener:
        port = listener.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)


@pytest.mark.parametrize(
    "body",
    [
        "nonsense",
        "{}",
        '{"version": 2, "ports": {}}',
        '{"version": 1, "ports": {"api": "8700"}}',
        '{"version": 1, "ports": {"api": true}}',
        '{"version": 1, "ports": {"api": 70000}}',
    ],
)
def test_corrupt_ports_are_one_line_and_stay_as_they_are(
    tmp_path: Path, body: str, claims: PortClaims
) -> None:
    path = tmp_path / "lab.json"
    path.write_text(body)
    with pytest.raises(CorruptState, match=r"lab\.json"):
        settle_ports(path, {"api": free_port()}, claims, ours=nobody, renew=True)
    assert path.read_text() == body


def test_children_of_another_boot_are_nobody(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    me = identify(os.getpid())
    assert me is not None
    write_children(path, {"me": me})
    assert read_children(path) == {"me": me}
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "boot": "another"}))
    assert read_children(path) == {}
    path.write_text(json.dumps({**document, "children": {"me": {"pid": "x"}}}))
    with pytest.raises(CorruptState):
        read_children(path)
