"""The commands `homeostat lease`: what people read, on 80 columns too, and what machines get."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from lease_parts import HOUR_NS, NOON_NS
from lease_site import LeaseSite, fill, lease_site

from homeostat.contracts.nouns import HostId
from homeostat.kernel.clock import iso

HOMEOSTAT = Path(sys.executable).with_name("homeostat")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_with_schema: Path) -> Iterator[LeaseSite]:
    file = shutil.copy(sqlite_with_schema, tmp_path_factory.mktemp("leases") / "homeostat.db")
    with lease_site(Path(file), 10) as started:
        started.do(fill(started))
        yield started


def environment(site: LeaseSite, who: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HOMEOSTAT", "COLUMNS"))
    }
    return kept | {"HOMEOSTAT_URL": site.client.url, "HOMEOSTAT_TOKEN": who, "TZ": "UTC", "TERM": "dumb"}


def lease(site: LeaseSite, *words: str, who: str = "admin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOMEOSTAT), "lease", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(site, who),
    )


def said(site: LeaseSite, *words: str, who: str = "admin") -> str:
    ended = lease(site, *words, who=who)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def on_terminal(site: LeaseSite, columns: int, *words: str) -> str:
    """What a terminal of this width shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [str(HOMEOSTAT), "lease", *words], stdout=theirs, stdin=theirs, env=environment(site, "admin")
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65_536):
            text += chunk
    except OSError:
        pass  # its end is closed: it has said everything
    os.close(ours)
    assert process.wait(30) == 0, text
    return text.decode().replace("\r\n", "\n")


def at(hours: float) -> str:
    return iso(NOON_NS + round(hours * HOUR_NS))


@pytest.mark.seed("order CLI lease ls show create set rm ack explain, lease hosts")
def test_a_lease_is_booked_shown_changed_and_deleted(site: LeaseSite) -> None:
    made = said(site, "create", "trial", "--hosts", "1-2", "--start", at(40), "--for", "4h", who="blue")
    assert "PENDING" in made and "1 to 2 hosts" in made and "(4 h)" in made
    row = json.loads(said(site, "show", "trial", "--json"))
    assert (row["project"], row["starts_at"], row["ends_at"]) == ("blue", at(40), at(44))
    changed = json.loads(
        said(site, "set", "trial", "--extend", "90m", "--hosts", "1", "--name", "test", "--json")
    )
    assert (changed["name"], changed["ends_at"], len(changed["hosts"])) == ("test", at(45.5), 1)
    assert json.loads(said(site, "show", row["id"][:8], "--json")) == changed
    assert said(site, "rm", "test") == "Lease test deleted.\n"
    gone = lease(site, "show", "test")
    assert gone.returncode == 4 and "there is no lease 'test'" in gone.stderr


def test_parts_of_hosts_are_booked_together_or_apart(site: LeaseSite) -> None:
    size = ("--vcpus", "1", "--memory-mb", "512", "--disk-gb", "2")
    words = ("create", "parts", "--instances", "3", *size, "--apart", "--start", at(50), "--for", "1h")
    row = json.loads(said(site, *words, "--json"))
    assert len(row["hosts"]) == 3 and row["reservations"][0]["affinity"] is False
    assert "3 of 1 vcpus, 512 MB, 2 GB, apart" in said(site, "show", "parts")
    said(site, "rm", "parts")


@pytest.mark.seed("order a refused create shows the free hosts and the next free slot")
def test_a_refused_create_shows_free_hosts_and_the_next_slot(site: LeaseSite) -> None:
    ended = lease(site, "create", "big", "--hosts", "7", "--start", at(22), "--for", "2h")
    assert ended.returncode == 2
    assert "7 is not accepted; not enough hosts are free" in ended.stderr
    assert "free (" in ended.stderr and "next free slot of this length: from " in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    slot = ended.stderr.rpartition("from ")[2].strip()
    row = json.loads(said(site, "create", "big", "--hosts", "7", "--start", slot, "--for", "2h", "--json"))
    assert len(row["hosts"]) == 7
    said(site, "rm", "big")


def test_ls_and_show_say_how_each_lease_stands(site: LeaseSite) -> None:
    rows = said(site, "ls").splitlines()
    assert rows[0].split()[:6] == ["id", "name", "project", "status", "health", "hosts"]
    by_name = {line.split()[1]: line for line in rows[1:]}
    assert "changed" in by_name["build-farm"] and "h1, h8" in by_name["build-farm"]
    assert "missing 1" in by_name["nightly-tests"]
    farm = said(site, "show", "build-farm")
    assert "degraded, resources_changed" in farm and "host h2 failed (host_down)" in farm
    assert "training" not in said(site, "ls", who="blue")
    assert said(site, "ls", "--all", "--json") == said(site, "ls", "--json"), "none is over yet"


@pytest.mark.parametrize(
    "words", [("ls",), ("show", "nightly-tests"), ("hosts", "ls"), ("explain", "release")]
)
def test_eighty_columns_are_enough(site: LeaseSite, words: tuple[str, ...]) -> None:
    shown = on_terminal(site, 80, *words)
    assert (shown and max(map(len, shown.splitlines())) <= 80) or words[0] in ("show", "explain"), shown
    # No word is cut in the middle.
    assert not [
        word for word in ("upgrade-rehearsal", "nightly-tests") if words == ("ls",) and word not in shown
    ]


@pytest.mark.seed("order explain names competing reservations, hosts, hours and the smallest change")
def test_explain_names_who_has_the_hosts_and_what_would_help(site: LeaseSite) -> None:
    text = said(site, "explain", "nightly-tests")
    assert "nightly-tests is ACTIVE: 0 of 1 place with a host." in text
    assert "Healing finds a host for all of it without a change" in text
    spare = [f"h{number}" for number in (6, 7, 9, 10)]
    for name in spare:
        said(site, "hosts", "hold", name, "--reason", "new memory", "--until", at(24))
    try:
        text = said(site, "explain", "nightly-tests")
        assert "would heal it" in text and "Proved: no smaller change does." in text
        assert "reserved by" in text and "build-farm" in text
        told = json.loads(said(site, "explain", "nightly-tests", "--json"))
        assert told["reservations"][0]["change"]["sentence"] in text
        mine = said(site, "explain", "nightly-tests", who="green")
        assert "build-farm" not in mine and "another project" in mine
    finally:
        for name in spare:
            said(site, "hosts", "release", name)


def test_hosts_are_held_released_and_listed(site: LeaseSite) -> None:
    held = said(site, "hosts", "hold", "h9", "--reason", "fan", "--until", at(24))
    assert "held" in held and "by admin: fan" in held
    rows = json.loads(said(site, "hosts", "ls", "--json"))["items"]
    assert next(row["hold"] for row in rows if row["host"] == "h9") == {
        "reason": "fan",
        "until_at": at(24),
        "by": "admin",
    }
    listed = {line.split()[0]: line.split()[1] for line in said(site, "hosts", "ls").splitlines()[1:]}
    assert (listed["h9"], listed["h2"], listed["h1"]) == ("held", "failed", "reservable")
    assert "reservable" in said(site, "hosts", "release", "h9")
    site.service.capacities[HostId("h11")] = site.service.capacities[HostId("h1")]
    assert "rack=r1" in said(site, "hosts", "add", "h11", "--property", "rack=r1")
    needs = '["==", "$rack", "r1"]'
    words = ("create", "racked", "--hosts", "1", "--require", needs, "--start", at(60), "--for", "1h")
    assert json.loads(said(site, *words, "--json"))["hosts"] == ["h11"]
    refused = lease(site, "hosts", "rm", "h11")
    assert refused.returncode == 2 and "lease racked of project infrastructure" in refused.stderr
    said(site, "rm", "racked")
    assert "cannot be reserved any more" in said(site, "hosts", "rm", "h11")
    assert lease(site, "hosts", "hold", "h1", "--reason", "x", who="blue").returncode == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "x", "--for", "1h"), "--hosts, --instances, or both"),
        (("create", "x", "--hosts", "1"), "one of --end and --for"),
        (("create", "x", "--hosts", "1", "--for", "1h", "--end", "2h"), "one of --end and --for"),
        (("create", "x", "--hosts", "one", "--for", "1h"), "a number, or two as 1-3"),
        (("create", "x", "--hosts", "1", "--for", "soon"), "90s, 15m, 2h or 7d"),
        (("create", "x", "--hosts", "1", "--for", "1h", "--start", "soon"), "2h for two hours from now"),
        (("create", "x", "--instances", "2", "--for", "1h"), "how much each of --instances has"),
        (("set", "build-farm", "--end", "2h", "--extend", "2h"), "--extend or --end, not both"),
        (("set", "build-farm", "--instances", "2"), "a lease with one virtual:instance; this has 0"),
        (("set", "build-farm"), "a field to change"),
        (("hosts", "add", "h1", "--property", "rack"), "a name and a value: rack=r1"),
        (("hosts", "hold", "h1", "--reason", "x", "--for", "1h", "--until", "2026-12-01"), "not both"),
    ],
)
def test_bad_input_is_one_line_that_says_what_would_be_accepted(
    site: LeaseSite, words: tuple[str, ...], says: str
) -> None:
    ended = lease(site, *words)
    assert ended.returncode == 2 and says in ended.stderr, ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_acknowledgement_clears_the_flag(site: LeaseSite) -> None:
    assert "flags     none" in said(site, "ack", "build-farm", who="blue").replace("if one fails", "")
    assert lease(site, "ack", "build-farm", who="watch").returncode == 5
