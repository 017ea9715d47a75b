"""Guests of a dead host that run again elsewhere: seen, given the bounds of their outage, told once a
project. Pure.

The fault of the host goes on for administrators; its tenants hear `recovered` when all of their guests that
were moved are up, or `recovered_wait_s` after the first of them was: one that never comes back does not hide
the others, and whoever comes later is told the next time. A guest counts while it is up on another host and
has no fault of its own; one that is placed nowhere is never told as back. It is looked at by level, so that
the next leader goes on where the last one ended; only then nobody knows the bounds of the outages.

`Fault.restored` is the text of what was told, `{"guest-1": ["n3", at_ns, lower_ms, upper_ms, "blue", part]}`,
and never changes for a guest that is in it: a notice rendered again must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

import orjson

from homeostat.contracts.events.faults import GuestRecovered
from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import (
    INFRASTRUCTURE,
    FaultId,
    HostId,
    Owner,
    ResourceId,
    ResourceState,
    resource_subject,
)
from homeostat.contracts.wire import ResourceTransition
from homeostat.faults import model
from homeostat.fleet.model import Resource
from homeostat.ingest.entry import Decision, IngestState, PendingNotice
from homeostat.ingest.watches import GuestMoments, GuestWatch
from homeostat.kernel.journal import NewEvent
from homeostat.notices.model import RestoredGuest

NOBODY: Mapping[str, RestoredGuest] = {}


@lru_cache(maxsize=64)
def decode_restored(text: str) -> Mapping[str, RestoredGuest]:
    """The text as what notices tell, by subject."""
    return {
        resource_subject(ResourceId(name)): RestoredGuest(*values)
        for name, values in orjson.loads(text).items()
    }


def _encode(known: str, more: dict[str, RestoredGuest]) -> str:
    rows = {name: list(guest) for name, guest in more.items()}
    return orjson.dumps({**orjson.loads(known), **rows}, option=orjson.OPT_SORT_KEYS).decode()


def note_guest(
    world: IngestState, row: Resource, was: ResourceState | None, seen: tuple[ResourceTransition, int]
) -> None:
    """A node reports the state of a guest. `seen`: the report, and the latest that it can have been made."""
    transition, server_ns = seen
    if not transition.mono_ns:
        world.guests.pop(row.id, None)  # it was so before somebody looked, and nobody knows since when
        return
    life = world.lives.get(row.host)
    offset_ns = server_ns - transition.mono_ns
    if life is not None and life.offset_ns is not None:
        offset_ns = min(offset_ns, life.offset_ns)
    before_ns = transition.before_mono_ns + offset_ns if transition.before_mono_ns else None
    known = world.guests.get(row.id, GuestMoments())
    world.guests[row.id] = known.after(row.state, was, (server_ns, before_ns))


def watch_guests(world: IngestState, fault: FaultId, host: HostId) -> None:
    """The host of this fault is dead: remember when each of its guests was last right.

    Its address may outlive them, and some may have gone wrong before. One that is up in the rows was so when
    its node's runner had last seen it; that it was told since would have changed the row.
    """
    watch = world.watched_guests.setdefault(fault, GuestWatch())
    for row in world.topology.on_host(host):
        if not row.generation:
            continue
        is_up = row.state is ResourceState.UP
        good_ns = world.seen_ns.get(host) if is_up else world.guests.get(row.id, GuestMoments()).good_ns
        if good_ns is not None:
            watch.good_ns[row.id] = good_ns
    world.seen_ns.pop(host, None)


def look_at_guests(
    world: IngestState, decision: Decision, fault: Fault, now: tuple[int, int], wait_s: float
) -> Fault:
    """See which guests of a dead host are up elsewhere, and tell the projects whose time has come.

    `now` is the server's wall and monotonic clock. Returns the fault as it is then.
    """
    watch = world.watched_guests.setdefault(fault.id, GuestWatch())
    node = world.topology.nodes.get(HostId(fault.host))
    if watch.fenced_ns is None and node is not None and node.fenced:
        watch.fenced_ns = now[1]
    if watch.looked == world.guest_changes and not watch.up:
        return fault
    if watch.looked != world.guest_changes:
        watch.looked = world.guest_changes
        _look(world, fault, watch, now[1])
    for project in sorted({world.topology.resources[name].owner for name in watch.up} - {INFRASTRUCTURE}):
        up = [name for name in watch.up if world.topology.resources[name].owner == project]
        late = now[1] - min(watch.up[name][1] for name in up) >= wait_s * 1e9
        if late or project not in watch.awaited:
            fault = _tell(world, decision, fault, (project, sorted(up)), now[0])
    return fault


def _look(world: IngestState, fault: Fault, watch: GuestWatch, mono_ns: int) -> None:
    """`watch` as the rows have it now."""
    told, up = decode_restored(fault.restored), watch.up
    watch.up, watch.awaited = {}, set()
    for row in _movable(world, fault):
        if resource_subject(row.id) in told:
            continue
        moved = row.host != fault.host
        right = moved and row.state is ResourceState.UP and resource_subject(row.id) not in world.faults
        if right:
            watch.up[row.id] = up.get(row.id, (row.since_ns, mono_ns))
        else:
            watch.awaited.add(row.owner)
        if moved and not right:
            watch.moved_ns.setdefault(row.id, mono_ns)


def _movable(world: IngestState, fault: Fault) -> Iterator[Resource]:
    """The rows of its guests that can run elsewhere."""
    for each in model.decode_affected(fault.affected):
        row = world.topology.resources.get(ResourceId(each.subject.partition("/")[2]))
        if row is not None and row.generation:
            yield row


def _tell(
    world: IngestState, decision: Decision, fault: Fault, what: tuple[Owner, list[ResourceId]], wall_ns: int
) -> Fault:
    """These guests of a project are back: written down, and told together."""
    project, names = what
    watch, rows = world.watched_guests[fault.id], world.topology.resources
    before = [each.part for each in decode_restored(fault.restored).values() if each.owner == project]
    part = max(before, default=0) + 1
    back: dict[str, RestoredGuest] = {}
    for name in names:
        since_ns, up_ns = watch.up.pop(name)
        bounds = _bounds(watch, name, world.guests.get(name, GuestMoments()), up_ns)
        row = rows[name]
        back[name] = RestoredGuest(row.host, since_ns, bounds.lower_ms, bounds.upper_ms, project, part)
        event = GuestRecovered(
            fault.id, name, project, HostId(row.host), since_ns, bounds.lower_ms, bounds.upper_ms
        )
        about = resource_subject(name)
        key = f"recovered/{fault.id}/{name}"
        seq = decision.add(NewEvent(event, about, wall_ns, "faults", fault.trace, fault.raised_seq, key=key))
    fault = replace(fault, restored=_encode(fault.restored, back))
    decision.changed.append(fault)
    decision.tellings.append(PendingNotice(fault, "recovered", seq, project=project, part=part))
    return fault


def _bounds(watch: GuestWatch, name: ResourceId, seen: GuestMoments, up_ns: int) -> model.OutageBounds:
    """By the server's clock, from what was seen of this guest.

    It may have run on after nothing was heard of its host: it was certainly gone when that was fenced, and
    until it was started elsewhere, which is after it was assigned there.
    """
    good_ns, moved_ns = watch.good_ns.get(name), watch.moved_ns.get(name)
    back_ns = up_ns if seen.back_ns is None else min(up_ns, seen.back_ns)
    gone_ns = min((each for each in (watch.fenced_ns, moved_ns) if each is not None), default=None)
    if gone_ns is None:
        if good_ns is None:
            return model.UNKNOWN_OUTAGE
        gone_ns = back_ns
    wrong_ns = max((each for each in (moved_ns, seen.bad_ns) if each is not None), default=None)
    return model.bounds_between((good_ns, gone_ns), (wrong_ns, back_ns))
