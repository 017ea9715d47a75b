"""The loops of monitors in virtual time: push alone, polling alone, both; errors, holds, dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest
from monitor_parts import (
    BOTH,
    POLLING,
    PUSH,
    Fleet,
    MonitoredSite,
    PolledHosts,
    ToldHosts,
    monitored,
    own_hosts,
)

from homeostat.contracts.events import leases as events
from homeostat.contracts.events.fleet import HostBack, HostDown
from homeostat.contracts.nouns import HostId
from homeostat.leases.monitor_loop import HostMonitor
from homeostat.leases.monitoring import HostOutcome, HostReport, Notification
from homeostat.leases.settings import ExternalMonitorSettings, MonitorSettings, PluginSettings
from homeostat.sim.database import SimDatabase

H1 = HostId("h1")
FAILED = HostReport(H1, HostOutcome.FAILED, "smoke")
WELL = HostReport(H1, HostOutcome.RECOVERED, "no smoke")


@pytest.fixture(scope="module")
def disk() -> Iterator[SimDatabase]:
    with closing(SimDatabase.in_memory()) as made:
        yield made


def own(settings: MonitorSettings) -> Callable[[Fleet], HostMonitor]:
    return partial(own_hosts, settings=settings)


def other(plugin: object, name: str = "m", **fields: object) -> Callable[[Fleet], HostMonitor]:
    settings = ExternalMonitorSettings(**fields)  # type: ignore[arg-type]
    return lambda _: HostMonitor(name, plugin, settings)


@pytest.mark.looptime
@pytest.mark.seed("003 push-based monitoring picks up messages that refer to managed resources")
async def test_push_alone_marks_at_once_and_never_polls_again(disk: SimDatabase) -> None:
    async with monitored(disk, own(PUSH)) as site:
        await site.at(5)
        await site.fleet.dies("h1")
        await site.at(5.1)
        assert site.state() == "failed" and site.marks == ["HostUnreservable"]
        await site.fleet.returns("h1")
        await site.at(5.2)
        assert site.state() == "reservable"
        await site.fleet.dies("h2", is_told=False)
        await site.at(10_000)
        assert site.state("h2") == "reservable", "what nobody announces push cannot see: the warning says so"


@pytest.mark.looptime
async def test_a_host_that_vanished_while_nobody_listened_is_marked_at_the_start(disk: SimDatabase) -> None:
    def vanished(fleet: Fleet) -> None:
        fleet.topology.forget(H1)

    async with monitored(disk, own(PUSH), begin=vanished) as site:
        await site.at(0.5)
        assert site.state() == "unknown"
        await site.at(2)
        assert site.state() == "failed"


@pytest.mark.looptime
@pytest.mark.seed("003 polling-based monitoring calls a states check method periodically")
async def test_polling_alone_marks_at_the_next_poll_and_hears_nothing(disk: SimDatabase) -> None:
    async with monitored(disk, own(POLLING)) as site:
        await site.at(5)
        await site.fleet.dies("h1")
        await site.at(59)
        assert site.state() == "reservable"
        await site.at(61)
        assert site.state() == "failed"
        await site.fleet.returns("h1")
        await site.at(121)
        assert site.state() == "reservable" and site.marks == ["HostUnreservable", "HostReservable"]


@pytest.mark.looptime
@pytest.mark.seed("order leases: the same with push and polling both, once")
async def test_both_mark_once_and_a_lost_push_is_made_up_for(disk: SimDatabase) -> None:
    async with monitored(disk, own(BOTH)) as site:
        await site.at(5)
        await site.fleet.dies("h1")
        await site.at(1000)
        assert site.marks == ["HostUnreservable"]
        await site.fleet.returns("h1", is_told=False)
        await site.at(1061)
        assert site.state() == "reservable"
        await site.fleet.dies("h2", is_told=False)
        await site.at(1121)
        assert site.state("h2") == "failed"


@pytest.mark.looptime
async def test_a_push_that_comes_twice_changes_nothing_the_second_time(disk: SimDatabase) -> None:
    async with monitored(disk, own(PUSH)) as site:
        await site.at(1)
        for _ in range(3):
            await site.fleet.tell(HostDown(H1, "no answer", 7))
        await site.at(2)
        assert site.marks == ["HostUnreservable"] and len(site.heard(events.HostReported)) == 1
        for _ in range(2):
            await site.fleet.tell(HostBack(H1, "it answers", 8))
        await site.at(3)
        assert site.marks == ["HostUnreservable", "HostReservable"]


@pytest.mark.looptime
@pytest.mark.seed("order leases: a vanished host is unknown, then missing, never reservable")
async def test_a_host_that_vanishes_from_the_list_is_unknown_then_failed(disk: SimDatabase) -> None:
    async with monitored(disk, own(POLLING)) as site:
        await site.at(5)
        await site.fleet.is_removed("h1")
        await site.at(61)
        assert site.state() == "unknown"
        await site.at(121)
        assert site.state() == "failed"
        row = site.service.keeper.book.hosts[H1]
        assert row.reason == "own-hosts: absent from the list" and not row.may_be_booked(0)
        site.fleet.joins("h1")
        await site.at(181)
        assert site.state() == "reservable"


@pytest.mark.looptime
async def test_a_host_that_a_person_removed_has_failed_at_once_where_push_is_on(disk: SimDatabase) -> None:
    async with monitored(disk, own(BOTH)) as site:
        await site.at(5)
        await site.fleet.is_removed("h1")
        await site.at(6)
        assert site.state() == "failed"
        await site.at(500)
        assert site.state() == "failed", "the list does not make it less so"


@pytest.mark.looptime
async def test_while_most_of_the_evidence_is_gone_nobody_is_accused(disk: SimDatabase) -> None:
    async with monitored(disk, own(POLLING)) as site:
        await site.at(5)
        site.fleet.doubt = "no host answers: suspect the monitor"
        site.fleet.topology.unheard = frozenset({H1})
        await site.at(500)
        assert site.marks == [] and site.heard(events.HostReported) == []


@pytest.mark.looptime
@pytest.mark.parametrize(
    "reports",
    [RuntimeError("the API is down"), ["h1 is down"], [None]],
    ids=["raises", "texts", "nothing"],
)
async def test_a_plugin_that_goes_wrong_is_unknown_and_stops_no_other(
    disk: SimDatabase, reports: list[object] | Exception
) -> None:
    bad, good = PolledHosts(FAILED), PolledHosts(WELL)
    async with monitored(disk, other(bad, "bad"), other(good, "good")) as site:
        await site.at(1)
        assert site.state() == "failed"
        bad.reports, good.reports = reports, [HostReport(HostId("h2"), HostOutcome.FAILED, "rack")]
        await site.at(100)
        assert site.state() == "failed", "an error changes nothing of what it said before"
        assert site.state("h2") == "failed" and len(bad.asked_s) == len(good.asked_s) == 10
        states = {each.name: each for each in site.loops.states}
        assert states["bad"].trouble and states["bad"].errors == 9 and states["good"].trouble == ""
        bad.reports = [WELL]
        await site.at(111)
        assert site.state() == "reservable" and site.loops.states[0].trouble == ""


@pytest.mark.looptime
async def test_a_plugin_that_hangs_is_unknown_after_its_interval(disk: SimDatabase) -> None:
    slow, good = PolledHosts(FAILED), PolledHosts(WELL)
    slow.takes_s = 10_000.0
    async with monitored(disk, other(slow, "slow"), other(good, "good")) as site:
        await site.at(95)
        assert site.marks == [] and len(good.asked_s) == 10
        assert site.loops.states[0].trouble == "no answer within 10 s"


@pytest.mark.looptime
async def test_a_callback_that_raises_stops_no_other_and_no_later_one(disk: SimDatabase) -> None:
    def react(notification: Notification) -> list[HostReport]:
        if notification.payload["reason"] == "bad":
            raise KeyError("reason")
        return [HostReport(HostId("h2"), HostOutcome.FAILED, "as told")]

    told = ToldHosts(react)
    async with monitored(disk, other(told), own(PUSH)) as site:
        await site.at(1)
        await site.fleet.tell(HostDown(H1, "bad", 7))
        await site.at(2)
        assert site.state() == "failed" and site.loops.states[0].trouble == "KeyError: 'reason'"
        await site.fleet.tell(HostBack(H1, "not asked for", 8))
        await site.fleet.tell(HostDown(HostId("h3"), "good", 9))
        await site.at(3)
        assert site.state("h2") == "failed" and site.loops.states[0].trouble == ""
        assert [each.event_type for each in told.heard] == ["HostDown", "HostDown"]
        first = told.heard[0]
        assert (first.topic, first.payload["subject"], first.payload["host"]) == ("journal", "node/x", "h1")


@pytest.mark.looptime
async def test_n_of_m_is_each_plugins_own(disk: SimDatabase) -> None:
    hasty, careful = PolledHosts(), PolledHosts()
    two_of_three = other(careful, "careful", confirm_polls=2, confirm_window=3, polling_interval=20)
    async with monitored(disk, other(hasty, "hasty"), two_of_three) as site:
        careful.reports = [FAILED]
        await site.at(21)
        assert site.state() == "failed" and len(careful.asked_s) == 2
        careful.reports = [WELL]
        await site.at(41)
        assert site.state() == "failed"
        await site.at(61)
        assert site.state() == "reservable"
        hasty.reports = [FAILED]
        await site.at(71)
        assert site.state() == "failed"


@pytest.mark.looptime
async def test_a_hold_ends_at_its_time_and_what_was_said_counts_then(disk: SimDatabase) -> None:
    async with monitored(disk, own(PUSH)) as site:
        now_ns = site.service.clock.wall_ns()
        await site.service.keeper.hold_host(H1, "new disk", now_ns + 3600 * 10**9, "admin")
        await site.fleet.dies("h1")
        await site.at(3599)
        assert site.state() == "reservable" and site.marks == []
        (said,) = site.heard(events.HostReported)
        assert "new disk" in said.withheld  # type: ignore[attr-defined]
        await site.at(3600.5)
        assert site.state() == "failed"
        row = site.service.keeper.book.hosts[H1]
        assert row.hold_reason == "" and site.heard(events.ReservableHostHeld)[-1].by == "its time"  # type: ignore[attr-defined]


@pytest.mark.looptime
@pytest.mark.seed("order leases: dry run decides and writes down, and changes nothing")
async def test_a_dry_run_writes_down_each_change_once_and_changes_nothing(disk: SimDatabase) -> None:
    plugin = PolledHosts(FAILED)
    async with monitored(disk, other(plugin, monitor_dry_run=True)) as site:
        await site.at(100)
        plugin.reports = [WELL]
        await site.at(200)
        said = site.heard(events.HostReported)
        assert [(each.outcome, each.withheld) for each in said] == [  # type: ignore[attr-defined]
            ("failed", "dry run"),
            ("recovered", "dry run"),
        ]
        assert site.marks == [] and site.state() == "reservable"


@pytest.mark.looptime
async def test_what_was_said_by_a_monitor_that_is_switched_off_is_withdrawn(disk: SimDatabase) -> None:
    off = PluginSettings(enable_notification_monitor=False, enable_polling_monitor=False)
    async with monitored(disk, own(PUSH)) as site:
        await site.at(1)
        await site.fleet.dies("h1")
        await site.at(2)
        service, fleet = site.service, site.fleet
        await _begin_again(site, own(off)(fleet))
        assert service.keeper.book.hosts[H1].reservable


async def _begin_again(site: MonitoredSite, monitor: HostMonitor) -> None:
    """As another server would, with these settings."""
    from monitor_parts import monitor_loops, running

    async with running(monitor_loops(site.service, site.disk, [monitor])):
        await site.at(10)


@pytest.mark.looptime
async def test_the_loops_are_those_that_are_switched_on(disk: SimDatabase) -> None:
    async with monitored(disk, own(BOTH), other(PolledHosts(), "polled")) as site:
        names = [each.name for each in site.loops.tasks()]
        assert names == ["holds of hosts", "notifications to monitors", "monitor own-hosts", "monitor polled"]
    async with monitored(disk, own(PUSH), other(ToldHosts(lambda _: ()), "told")) as site:
        names = [each.name for each in site.loops.tasks()]
        assert names == ["holds of hosts", "notifications to monitors", "first looks of monitor own-hosts"]
        assert site.loops.healing_intervals_s == (3600.0, None)
