"""From a drill and a site to what is exactly done: tables and properties, nothing runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from played_run import shipped

from homeostat.drills.actions import (
    CpuFault,
    DiskFault,
    FreezeFault,
    KillFault,
    NetworkFault,
    PowerOffFault,
    Victim,
    VictimChoice,
)
from homeostat.drills.model import Drill, DrillTarget, Redundancy
from homeostat.drills.planning.blast_radius import (
    ServingHost,
    collateral,
    down_too_long,
    enough_serve,
    hit_services,
    last_back_ends,
)
from homeostat.drills.planning.preflight import (
    PERIOD_MIN_MS,
    RunPlace,
    can_be_denser,
    command_pattern,
    monitor_plans,
    sampler_configs,
)
from homeostat.drills.planning.preparation import (
    check_fit,
    injector_host,
    injector_order,
    probe_url,
    resources_of,
    undecidable_limits,
    url_of,
    victims,
)
from homeostat.drills.running.injection import (
    ClockExchange,
    ObservedEffect,
    bracket,
    may_operate,
    window_end_ns,
    window_limit_ns,
)
from homeostat.drills.shipped.injectors.matching import shown_line
from homeostat.drills.site import Site, read_site
from homeostat.kernel.errors import BadInput, NotFound

MS = 1_000_000
SITE: dict[str, Any] = {
    "site": "lab",
    "hosts": {
        "n1": {"config": "hosts/n1.yaml", "power": {"host": "up"}},
        "n2": {"config": "/etc/n2.yaml"},
        "n3": {"ssh": {"address": "10.0.0.3", "user": "ops", "key_file": "keys/id", "jump": {
            "address": "10.0.0.1", "user": "ops", "known_hosts_file": "known"}}},
        "up": {"config": "up.yaml", "probe": "tcp://10.0.0.9:22"},
    },
    "services": {
        "web": {
            "endpoint": "http://127.0.0.1:8080",
            "hosts": {
                host: {"url": f"http://127.0.0.1:880{number}", "profile": "web", "resource": f"web-{host}"}
                for number, host in enumerate(("n1", "n2", "n3"), start=1)
            },
        },
        "balancer": {"endpoint": "tcp://127.0.0.1:8080", "hosts": {"n1": {"profile": "balancer"}}},
        "mail": {
            "endpoint": "tcp://127.0.0.1:25",
            "down_at_most": "2s",
            "hosts": {"n2": {"profile": "mail", "url": "tcp://127.0.0.1:26"}},
        },
    },
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return read(tmp_path, SITE)


def read(folder: Path, given: dict[str, Any]) -> Site:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(given))
    return read_site(path)


def test_paths_of_this_machine_are_beside_the_site_file(site: Site, tmp_path: Path) -> None:
    assert site.hosts["n1"].config == tmp_path / "hosts/n1.yaml"
    assert site.hosts["n2"].config == Path("/etc/n2.yaml")
    ssh = site.hosts["n3"].ssh
    assert ssh is not None and ssh.jump is not None
    assert (ssh.key_file, ssh.jump.known_hosts_file) == (tmp_path / "keys/id", tmp_path / "known")
    assert site.services["mail"].down_at_most_ms == 2_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hosts": {"n1": {}}}, "config (a node.yaml on this machine), ssh or node"),
        ({"hosts": {"n1": {"config": "x", "power": {"host": "n1"}}}}, "hosts.n1.power.host"),
        ({"services": {"web": {"hosts": {"n9": {"profile": "web"}}}}}, "services.web.hosts.n9"),
        (
            {"services": {"web": {"holder": "address", "hosts": {"n1": {"profile": "web"}}}}},
            "needs an endpoint",
        ),
        ({"drills": {"undo_deadline_s": 10, "renew_s": 4}}, "at most a third"),
        ({"hosts": {"n1": {"config": "x", "confg": "y"}}}, "there is no such setting"),
        ({"services": {"web": {"hosts": {"n1": {"profile": "web", "url": "ftp://x"}}}}}, "url"),
        ({"services": {"web": {"endpoint": "http://[::1", "hosts": {"n1": {"profile": "web"}}}}}, "endpoint"),
        (
            {"services": {"web": {"endpoint": "tcp://n1", "hosts": {"n1": {"profile": "web"}}}}},
            "host and port",
        ),
    ],
)
def test_a_site_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        read(tmp_path, SITE | change)


@pytest.mark.parametrize("text", ["site: [", "- n1", None])
def test_a_file_that_is_no_site_is_told_by_its_option(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "site.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=r"--site: .*site\.yaml"):
        read_site(path)


NAMES = st.sets(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), min_size=1, max_size=9).map(sorted)


@given(NAMES, st.integers(), st.data())
def test_the_same_seed_hits_the_same_host_whatever_the_order(
    hosts: list[str], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(hosts))
    chosen = victims(hosts, VictimChoice.SEEDED, seed)
    assert chosen == victims(shuffled, VictimChoice.SEEDED, seed) and chosen[0] in hosts
    assert victims(shuffled, VictimChoice.FIRST, seed) == (hosts[0],)
    assert victims(shuffled, VictimChoice.EACH, seed) == tuple(hosts)
    holder = data.draw(st.sampled_from(hosts))
    assert victims(shuffled, VictimChoice.HOLDER, seed, [holder]) == (holder,)
    if len(hosts) > 1:
        (other,) = victims(shuffled, VictimChoice.NON_HOLDER, seed, [holder])
        assert other != holder and (other,) == victims(hosts, VictimChoice.NON_HOLDER, seed, [holder])


def test_every_host_can_be_chosen_by_some_seed() -> None:
    assert {victims(["a", "b", "c"], VictimChoice.SEEDED, seed)[0] for seed in range(50)} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("choose", "holders"),
    [
        (VictimChoice.HOLDER, []),
        (VictimChoice.HOLDER, ["a", "b"]),
        (VictimChoice.NON_HOLDER, []),
        (VictimChoice.NON_HOLDER, ["a", "b"]),
    ],
)
def test_nobody_is_hit_when_it_is_not_clear_who_holds_the_address(
    choose: VictimChoice, holders: list[str]
) -> None:
    with pytest.raises(NotFound):
        victims(["a", "b"], choose, 1, holders)


WEB = Victim(service="web")


@pytest.mark.parametrize(
    ("fault", "kind", "target"),
    [
        (KillFault("kill", WEB), "node_kill", {"profile": "web", "signal": "SIGKILL"}),
        (
            KillFault("kill", WEB, "SIGTERM", collateral=True),
            "node_kill",
            {"profile": "web", "signal": "SIGTERM", "allow_collateral": True},
        ),
        (FreezeFault("freeze", WEB, 1000), "node_freeze", {"profile": "web"}),
        (CpuFault("cpu", WEB, 1000), "node_cpu", {}),
        (
            DiskFault("disk", WEB, 1000, "/data", 64, 1.5),
            "node_disk",
            {"folder": "/data", "size_mib": 64, "floor_mib": 1536},
        ),
        (DiskFault("disk", WEB, 1000), "node_disk", {"size_mib": 1024, "floor_mib": 1024}),
        (
            NetworkFault("network", WEB, 1000, device="eth0", ports=(80,)),
            "node_network",
            {"does": "cut", "device": "eth0", "ports": [80]},
        ),
        (
            NetworkFault("network", WEB, 1000, "latency", 50, "eth0"),
            "node_network",
            {"does": "latency", "device": "eth0", "delay_ms": 50},
        ),
        (PowerOffFault("host_off", WEB, 1000), "node_power", {"host": "n1"}),
    ],
)
def test_what_the_injector_is_told(site: Site, fault: Any, kind: str, target: dict[str, Any]) -> None:
    order = injector_order(site, fault, "n1", "r-1", 30)
    assert order == {"fault": "r-1", "injector": kind, "deadline_s": 30, "target": target}


def test_a_host_is_switched_off_elsewhere(site: Site) -> None:
    off = PowerOffFault("host_off", WEB, 1000)
    assert injector_host(site, off, "n1") == "up"
    assert injector_host(site, KillFault("kill", WEB), "n1") == "n1"
    with pytest.raises(BadInput, match=r"hosts\.n2\.power"):
        injector_host(site, off, "n2")


def test_our_fault_manager_is_told_what_may_suffer(site: Site) -> None:
    assert resources_of(site, KillFault("kill", WEB), "n1") == ("web-n1",)
    assert resources_of(site, KillFault("kill", Victim(service="balancer")), "n1") == ()
    assert resources_of(site, CpuFault("cpu", Victim(host="n2"), 1), "n2") == ("web-n2",)


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (DrillTarget(service="web"), "http://127.0.0.1:8080"),
        (DrillTarget(service="web", on="victim"), "http://127.0.0.1:8802"),
        (DrillTarget(host="up"), "tcp://10.0.0.9:22"),
        (DrillTarget(host="n3"), "tcp://10.0.0.3:22"),
        (DrillTarget(url="http://elsewhere:1"), "http://elsewhere:1"),
    ],
)
def test_where_a_target_answers(site: Site, target: DrillTarget, url: str) -> None:
    assert url_of(site, target, "n2", "monitors.x.target") == url


@pytest.mark.parametrize(
    "target",
    [
        DrillTarget(host="n1"),
        DrillTarget(service="nova"),
        DrillTarget(service="mail", on="victim"),
        DrillTarget(host="x"),
    ],
)
def test_what_answers_nowhere_is_refused(site: Site, target: DrillTarget) -> None:
    with pytest.raises(BadInput):
        url_of(site, target, "n1", "monitors.x.target")


@pytest.mark.parametrize(
    ("url", "kind", "path", "asked"),
    [
        ("http://a:1", "http", "/", "http://a:1/"),
        ("http://a:1/", "http", "/x?y=1", "http://a:1/x?y=1"),
        ("http://a:1/v2", "http", "/", "http://a:1/v2"),
        ("http://a:1/v2", "http", "/x", "http://a:1/v2/x"),
        ("http://a", "tcp", "/", "tcp://a:80"),
        ("tcp://[::1]:9", "tcp", "/", "tcp://[::1]:9"),
    ],
)
def test_what_is_asked(url: str, kind: str, path: str, asked: str) -> None:
    assert probe_url(url, kind, path) == asked


def test_what_cannot_be_asked_in_that_way_is_refused() -> None:
    for url, kind in (("tcp://a:1", "http"), ("tcp://a", "tcp")):
        with pytest.raises(BadInput):
            probe_url(url, kind, "/")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=250)))
def test_a_watch_finds_exactly_the_command_lines_that_were_matched(lines: list[str]) -> None:
    shown = [line[:200] for line in lines] or ["x"]
    pattern = re.compile(command_pattern(shown))
    for line, cut in zip(lines, shown, strict=False):
        assert pattern.search(line)
        if len(cut) < 200:
            assert line + "!" in lines or not pattern.search(line + "!") or len(line) + 1 > 200
    assert not pattern.search("something else entirely") or "something else entirely" in shown


def test_what_a_match_list_hides_may_be_anything() -> None:
    pattern = re.compile(command_pattern(["app --db sql://u:(hidden)@h/x --port 1"]))
    assert pattern.search("app --db sql://u:secret@h/x --port 1")
    assert not pattern.search("app --db sql://u:secret@h/x --port 12")


@pytest.mark.parametrize(
    "words",
    ["--password {}", "--db-password={}", "--token {}", "-e API_KEY={}", "--db sql://u:{}@h/x"],
)
@pytest.mark.parametrize("room", [0, 170, 180, 188, 193, 199, 250])
def test_no_secret_of_a_command_line_is_shown_and_it_is_found_again(words: str, room: int) -> None:
    line = "app ".ljust(room, "x") + " " + words.format("s3cr3t-s3cr3t") + " --port 1"
    shown = shown_line(line)
    assert "s3cr" not in shown
    assert re.search(command_pattern([shown]), line)
    assert room > 100 or not re.search(command_pattern([shown]), line + "2")


def test_a_file_with_a_secret_is_no_secret() -> None:
    line = "app --token-file /run/token --token --verbose"
    assert shown_line(line) == line


def test_shipped_drills_fit_a_site_that_has_what_they_ask_for(site: Site) -> None:
    for name in ("service-down", "cpu-overload", "host-down", "disk-io-overload", "balancer-down"):
        check_fit(site, shipped(name), "n1")
    with pytest.raises(BadInput, match=r"fault\.target\.service.*'node'"):
        check_fit(site, shipped("node-frozen"), "n1")


def test_monitors_are_shifted_and_become_denser(site: Site) -> None:
    drill = shipped("service-down")
    for denser, period in ((0, 20.0), (1, 10.0), (2, PERIOD_MIN_MS), (3, PERIOD_MIN_MS)):
        assert {plan.period_ms for plan in monitor_plans(drill, denser)} == {period}
    assert can_be_denser(drill, 1) and not can_be_denser(drill, 2)
    plans = {plan.id: plan for plan in monitor_plans(drill, 1)}
    configs = sampler_configs(RunPlace(site, "n2", Path("/run")), drill, plans, None)
    assert [(each.name, each.phase_ms, each.period_ms) for each in configs] == [
        ("web", 0.0, 10.0),
        ("web-there", 5.0, 10.0),
    ]
    assert configs[1].url == "http://127.0.0.1:8802/"
    assert configs[0].samples_file == "/run/samples/web.jsonl"
    assert all(each.checked() and each.baseline_samples == 100 for each in configs)


def test_the_resolution_is_judged_against_each_binding_limit() -> None:
    drill = shipped("service-down")
    assert undecidable_limits(drill, {"web": 250.0, "web-there": 1500.0}) == []
    (only,) = undecidable_limits(drill, {"web": 251.0, "web-there": 1500.0})
    assert only.startswith("web: its bounds would be 251 ms apart")


# ---- guards -------------------------------------------------------------------------------------


def serving(**hosts: bool) -> list[ServingHost]:
    return [ServingHost(host, serves, "200" if serves else "refused") for host, serves in hosts.items()]


@pytest.mark.parametrize(
    ("hosts", "quorum", "refused"),
    [
        ({"n1": True, "n2": True, "n3": True}, 1, False),
        ({"n1": True, "n2": True, "n3": False}, 1, False),
        ({"n1": True, "n2": False, "n3": False}, 1, True),
        ({"n1": True, "n2": True, "n3": False}, 2, True),
        ({"n1": False, "n2": True, "n3": True}, 2, False),
    ],
)
@pytest.mark.seed("000 more than one controller")
def test_the_last_back_end_and_the_quorum_are_protected(
    site: Site, hosts: dict[str, bool], quorum: int, refused: bool
) -> None:
    services = dict(site.services)
    services["web"] = services["web"].model_copy(update={"quorum": quorum})
    asked = site.model_copy(update={"services": services})
    found = last_back_ends(asked, "n1", {"web": serving(**hosts)}, ["web"])
    assert bool(found) == refused


def test_redundancy_is_counted() -> None:
    asked = Redundancy("redundancy", "R0.1", "web", 2)
    assert enough_serve(asked, serving(n1=True, n2=True)) == (True, "2 of 2 back ends serve")
    assert enough_serve(asked, serving(n1=True, n2=False)) == (False, "1 of 2 back ends serve (n2: refused)")


@pytest.mark.seed("000 more than one controller")
def test_a_host_that_is_switched_off_takes_what_nobody_asks_by_a_url_too(site: Site) -> None:
    drill = shipped("host-down")
    assert hit_services(site, drill, "n1") == ("balancer", "web")
    alone = {"balancer": [ServingHost("n1", True, "2 processes")], "web": serving(n1=True, n2=True)}
    (refused,) = last_back_ends(site, "n1", alone, hit_services(site, drill, "n1"))
    assert refused.startswith("balancer: without n1, no host would serve")


def test_a_kill_hits_one_service_and_a_busy_host_all_that_answer_there(site: Site) -> None:
    assert hit_services(site, shipped("service-down"), "n2") == ("web",)
    assert hit_services(site, shipped("cpu-overload"), "n2") == ("mail", "web")
    assert hit_services(site, shipped("balancer-down"), "n1") == ("balancer",)


def test_what_is_not_meant_is_watched(site: Site) -> None:
    names = {each.name: each.at_most_ms for each in collateral(site, shipped("service-down"), "n1")}
    assert names == {
        "web on n2": 10_000,
        "web on n3": 10_000,
        "mail": 2_000,
        "mail on n2": 2_000,
        "balancer": 10_000,
    }
    # What the drill itself measures is no collateral, however it ends.
    assert "web" not in {each.name for each in collateral(site, shipped("balancer-down"), "n1")}


def test_collateral_may_be_down_for_a_while() -> None:
    assert not down_too_long(None, 10**12, 1000)
    assert not down_too_long(0, 1000 * MS, 1000)
    assert down_too_long(0, 1000 * MS + 1, 1000)


# ---- when to operate, when it is over ---------------------------------------------------------------

KILLED: Drill = shipped("service-down")
FINE, OUT, BACK = (
    ObservedEffect(False, False, None),
    ObservedEffect(True, True, None),
    ObservedEffect(True, False, 5_000 * MS),
)


@pytest.mark.parametrize(
    ("felt", "undone_ms", "at_ms", "may"),
    [
        ([FINE], 1_100, 2_999, False),
        ([FINE], 1_100, 3_000, True),
        ([BACK], 1_100, 1_500, True),
        ([OUT], 1_100, 9_000, False),
        ([BACK, OUT], 1_100, 9_000, False),
        ([BACK], None, 9_000, False),
    ],
)
@pytest.mark.seed("000 operate when the list returns")
def test_one_operates_after_a_failure_or_once_it_could_be_felt(
    felt: list[ObservedEffect], undone_ms: int | None, at_ms: int, may: bool
) -> None:
    undone_ns = None if undone_ms is None else undone_ms * MS
    assert may_operate(KILLED, 1_000 * MS, undone_ns, felt, at_ms * MS) is may


@given(
    st.integers(0, 10**11),
    st.one_of(st.none(), st.integers(0, 10**11)),
    st.lists(st.sampled_from([FINE, OUT, BACK]), max_size=4),
)
def test_the_window_ends_settled_after_everything(
    injected_ns: int, undone_ns: int | None, felt: list[ObservedEffect]
) -> None:
    over = window_end_ns(KILLED, injected_ns, undone_ns, felt)
    if undone_ns is None or OUT in felt:
        assert over is None
        return
    assert over is not None
    settle_ns = round(KILLED.window.settle_ms * MS)
    assert over >= injected_ns + round(KILLED.window.effect_within_ms * MS) + settle_ns
    assert over >= undone_ns + settle_ns
    assert all(over >= (each.back_ns or 0) + settle_ns for each in felt)


def test_a_fault_that_lasts_is_measured_while_it_lasts() -> None:
    drill = shipped("cpu-overload")
    assert window_end_ns(drill, 0, 1, []) == (15_000 + 3_000) * MS
    assert window_limit_ns(drill, 7) == 40_000 * MS + 7


# ---- clocks -----------------------------------------------------------------------------------------


@given(
    st.integers(-(10**15), 10**15),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=3),
)
def test_the_moments_of_a_host_are_bracketed_whatever_its_clock_says(
    ahead_ns: int, lead_ns: int, took_ns: int, tail_ns: int, trips: list[tuple[int, int]]
) -> None:
    began_ns = 10**12
    fault = began_ns + lead_ns, began_ns + lead_ns + took_ns
    called = began_ns, fault[1] + tail_ns
    exchanges = [
        ClockExchange(began_ns - out - back, began_ns - back + ahead_ns, began_ns) for out, back in trips
    ]
    before, after = bracket(exchanges, called, (fault[0] + ahead_ns, fault[1] + ahead_ns))
    assert called[0] <= before <= fault[0] <= fault[1] <= after <= called[1]


def test_of_several_exchanges_the_widest_holds() -> None:
    """The host's clock was set forward between two of them, and nobody knows on which side the fault lies."""
    exchanges = [ClockExchange(0, 0, 10), ClockExchange(20, 520, 30)]
    assert bracket(exchanges, (0, 10_000), (2_000, 2_000)) == (1_500, 2_010)


def test_stamps_that_contradict_the_call_are_not_believed() -> None:
    same = [ClockExchange(0, 0, 0)]
    assert bracket(same, (100, 200), (900, 950)) == (100, 200)


def test_a_drill_that_asks_for_what_the_site_has_not_is_told_where(site: Site) -> None:
    drill = shipped("service-down")
    elsewhere = replace(drill, cleanup=(replace(drill.cleanup[0], service="nova"),))
    with pytest.raises(BadInput, match=r"cleanup\.0\.service"):
        check_fit(site, elsewhere, "n1")
