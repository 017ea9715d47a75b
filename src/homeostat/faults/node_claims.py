"""Claims of nodes that do not fit the rows: a later generation of a guest, or a project that is not theirs.
Pure.

Only the server gives generations. That a node says a higher one is evidence that the rows may be older than
the world, as after a restore of the database, and no more than that. It counts when the host that the row
names has not been heard since the tables were read and is lost or down, when that host says that the guest
stopped there while its node process runs on, when it is down and fenced, or when a person confirms it. While
that host has not had the time to speak the claim waits. Everything else is refused, changes no row, and is a
fault of the node that says so for as long as it does. Which projects a node may name is a setting of the
server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from homeostat.contracts.events.fleet import GuestClaimConfirmed, NodeClaimRefused
from homeostat.contracts.nouns import (
    FaultKind,
    HostId,
    ResourceId,
    ResourceState,
    assignment_subject,
    node_subject,
    resource_subject,
)
from homeostat.contracts.wire import Observations, ResourceStatus, Snapshot
from homeostat.faults.inspection import on_drift, update_fault
from homeostat.faults.lifecycle import Observed
from homeostat.fleet.model import AgentState, CompleteSnapshot, NodeClaim, Resource, Topology
from homeostat.fleet.settings import NodeOwners
from homeostat.ingest.entry import Decide, Decision, IngestState, Moment
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import EventIndex, NewEvent

AHEAD_MAX = 10_000
"""Moves of one guest that a database may not know of. Too small: an old one never learns where a guest is.
Too large: one node that says nonsense uses up all generations that can be stored."""
CLAIMS_MAX = 1000
"""Claims of one node that are remembered one by one, some 0.3 MB. Too small: after a restore its guests are
found in several steps. Too large: whoever has the password of a node fills the memory with names."""
OTHERS = ResourceId("*")
"""Stands for all false claims beyond that; no resource has this name."""
TOLD_EVERY_NS = 10**9
"""Between two refusals of one node in the journal: each is an event, and a node can claim at message rate."""


@dataclass(frozen=True, slots=True)
class ClaimRefusal:
    """Why a level changes nothing. `waits`: its host's word is awaited; `is_false`: a fault of the node."""

    why: str
    waits: bool = False
    is_false: bool = False


class NodeClaims:
    """Takes in what nodes say against these settings, as steps of the write path.

    What is claimed is remembered in the state, outside of any decision: it is said again until it is over.
    """

    def __init__(self, owners: NodeOwners) -> None:
        self._owners = owners

    def refuse(
        self, state: IngestState, message: Observations | Snapshot, level: ResourceStatus
    ) -> Decide | None:
        """The refusal of one level, None when its node may say so."""
        host = message.host
        refused = refusal(state, host, level, self._owners)
        if refused is not None and (refused.waits or refused.is_false):
            named = self._owners.may_name(host, level.owner)
            generation = level.generation if named else 0
            return _note(state, host, _claim(level, generation, message.boot, refused))
        state.claims.get(host, {}).pop(level.resource, None)
        if refused is None:
            return None
        return _ignored(f"{host} reports {level.resource} under {level.generation}: {refused.why}")

    def hear_offers(
        self, state: IngestState, message: Snapshot, whole: CompleteSnapshot | None
    ) -> Iterator[Decide]:
        """What a node could run, as far as it may say so; `whole` when it has told everything."""
        host, may_name = message.host, self._owners.may_name
        allowed = tuple(each for each in message.offers if may_name(host, each.owner))
        if whole is not None:
            state.topology.hear_offers(host, whole.offers, lambda each: may_name(host, each.owner))
            offered = {offer.resource for offer in whole.offers}
            for claim in list(state.claims.get(host, {}).values()):
                if claim.resource not in (offered if claim.level is None else whole.resources):
                    del state.claims[host][claim.resource]
        elif allowed:
            state.topology.hear_some(host, allowed)
        if len(allowed) < len(message.offers):
            for offer in message.offers:
                if not may_name(host, offer.owner):
                    why = _foreign_owner(offer.resource, offer.owner).why
                    claim = NodeClaim(offer.resource, 0, None, message.boot, why, is_false=True)
                    yield _note(state, host, claim)

    def agree(self, state: IngestState, host: HostId) -> Iterator[Decide]:
        """A node knows what we know: it claims nothing."""
        state.claims.pop(host, None)
        return self.settle(state, host, told_all=True)

    def settle(self, state: IngestState, host: HostId, *, told_all: bool) -> Iterator[Decide]:
        """A node has spoken: others may have waited for it; its own claims are over if it `told_all`."""
        if state.claims:
            yield from self.decide_waiting(state)
        if not told_all:
            return
        fault = state.faults.get(assignment_subject(host))
        said = state.claims.get(host, {}).values()
        if fault is not None and fault.up_ns is None and not any(each.is_false for each in said):
            yield lambda state, now: on_claims_over(state, host, now)

    def decide_waiting(self, state: IngestState) -> Iterator[Decide]:
        """Decide about claims that waited for another host, where it has spoken or is silent by now."""
        waiting = [
            (host, claim) for host, claims in state.claims.items() for claim in claims.values() if claim.waits
        ]
        for host, claim in waiting:
            assert claim.level is not None
            refused = refusal(state, host, claim.level, self._owners)
            if refused is None:
                del state.claims[host][claim.resource]
                yield partial(_accepted, host, claim)
            elif not refused.waits:
                yield _note(state, host, _claim(claim.level, claim.generation, claim.store, refused))


def _claim(level: ResourceStatus, generation: int, store: str, refused: ClaimRefusal) -> NodeClaim:
    return NodeClaim(level.resource, generation, level, store, refused.why, refused.waits, refused.is_false)


def _note(state: IngestState, host: HostId, claim: NodeClaim) -> Decide:
    """Remember what a node claims. What it claimed a moment ago as well is not written down again."""
    known = state.claims.setdefault(host, {})
    if claim.resource not in known and len(known) >= CLAIMS_MAX:
        if not claim.is_false:  # it is said again, when others have been decided
            return _ignored(f"{host} reports {claim.resource}: {claim.why}, and so do {CLAIMS_MAX} others")
        why = f"it claims more than {CLAIMS_MAX} resources that are not its own"
        claim = NodeClaim(OTHERS, 0, None, claim.store, why, is_false=True)
    before = known.get(claim.resource)
    is_told = before is not None and before == replace(claim, level=before.level, is_told=True)
    known[claim.resource] = replace(claim, is_told=is_told)
    fault = state.faults.get(assignment_subject(host))
    if not claim.is_false or (is_told and fault is not None and fault.up_ns is None):
        return _ignored(f"{host} reports {claim.resource}: {claim.why}")
    return lambda state, now: on_claim_refused(state, host, claim, now)


def _ignored(what: str) -> Decide:
    return lambda _, now: Decision(now.base, refused=[what])


def _accepted(host: HostId, claim: NodeClaim, state: IngestState, now: Moment) -> Decision:
    assert claim.level is not None
    decision = on_drift(state, host, claim.store, claim.level, (now.base, now.clear_after_s))
    decision.assign.add(host)
    return decision


def refusal(
    world: IngestState, host: HostId, level: ResourceStatus, owners: NodeOwners
) -> ClaimRefusal | None:
    """Why a host may not say this, None when it may."""
    if not owners.may_name(host, level.owner):
        return _foreign_owner(level.resource, level.owner)
    row = world.topology.resources.get(level.resource)
    known = 0 if row is None else row.generation
    if known == 0 and level.generation == 0:
        return None
    if row is not None and level.generation <= known:
        is_current = row.host == host and level.generation in (0, known)
        return None if is_current else ClaimRefusal(f"it is on {row.host} under generation {known}")
    if row is not None and row.host != host and (contested := _contested(world, row)) is not None:
        return contested
    return None if _may_lead(world.topology, host, level) else ClaimRefusal("it cannot know of that")


def _foreign_owner(resource: ResourceId, owner: str) -> ClaimRefusal:
    why = f"it names {resource} of project {owner}, which fleet.hosts.owners or fleet.owners does not list"
    return ClaimRefusal(why, is_false=True)


def _contested(world: IngestState, row: Resource) -> ClaimRefusal | None:
    """Why the host that the row names is believed and not another one; None when it has no objection."""
    node = world.topology.nodes.get(row.host)
    if node is None or (node.down_ns is not None and node.fenced):
        return None
    stands = f"the guest is on {row.host} under generation {row.generation}"
    is_silent = node.down_ns is not None or node.agent is AgentState.LOST
    if not _has_spoken(world, row.host):
        if is_silent:
            return None
        if node.agent is AgentState.PRESENT:
            return ClaimRefusal(f"{stands}, which has not spoken yet", waits=True)
    elif row.state is ResourceState.STOPPED and row.seq and node.agent is AgentState.PRESENT:
        return None  # it says itself that it does not run it; one that stopped in order starts it again
    return ClaimRefusal(f"{stands}; only the server gives generations", is_false=True)


def _has_spoken(world: IngestState, host: HostId) -> bool:
    """Whether it told everything that it knows since the tables were read."""
    node, whole = world.topology.nodes[host], world.pictures.whole.get(host)
    return whole is not None and node.acked_seq >= whole


def _may_lead(topology: Topology, host: HostId, level: ResourceStatus) -> bool:
    """Whether a node may know of a later assignment than the rows: it could run the guest, and one database
    is not older than another by more than so many moves."""
    row = topology.resources.get(level.resource)
    known = 0 if row is None else row.generation
    offers = level.resource in topology.offers.get(host, ())
    ours = row is not None and row.host == host
    return (offers or ours) and level.generation - known <= AHEAD_MAX


def on_claim_refused(world: IngestState, host: HostId, claim: NodeClaim, now: Moment) -> Decision:
    """Write down what a node claims, unless another claim of it was a moment ago, and raise the fault of it.

    `claim` is new, or told anew. One that is not written down is when its node says it again.
    """
    decision = Decision(now.base, refused=[f"{host} reports {claim.resource}: {claim.why}"])
    about = assignment_subject(host)
    evidence = f"{about}/{claim.resource}/{claim.generation}/{now.wall_ns}"
    cause: EventIndex | None = None
    told_ns = world.claim_told_ns.get(host)
    if told_ns is None or now.mono_ns - told_ns >= TOLD_EVERY_NS:
        world.claim_told_ns[host] = now.mono_ns
        world.claims.setdefault(host, {})[claim.resource] = replace(claim, is_told=True)
        event = NodeClaimRefused(host, claim.resource, claim.generation, claim.why)
        trace = fault.trace if (fault := world.faults.get(about)) is not None else evidence
        cause = decision.add(NewEvent(event, about, now.wall_ns, node_subject(host), trace))
    said = f" under generation {claim.generation}" if claim.generation else ""
    seen = Observed(
        about=about,
        state=ResourceState.DOWN,
        kind=FaultKind.CLAIM_REFUSED,
        reason=f"{host} claims {claim.resource}{said}: {claim.why}",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=node_subject(host),
        evidence=evidence,
        cause=cause,
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_claims_over(world: IngestState, host: HostId, now: Moment) -> Decision:
    """The node says what the rows say, or its claims were accepted."""
    decision = Decision(now.base)
    about = assignment_subject(host)
    seen = Observed(
        about=about,
        state=ResourceState.UP,
        kind=FaultKind.CLAIM_REFUSED,
        reason="the node does not claim it any more",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=node_subject(host),
        evidence=f"{about}/over/{now.wall_ns}",
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_claim_confirmed(world: IngestState, host: HostId, asked: tuple[str, str], now: Moment) -> Decision:
    """A person says that the node is right: the rows are older than the world. `asked`: resource and by whom.

    NotFound: its node does not claim it now.
    """
    name, by = asked
    resource = ResourceId(name)
    claim = world.claims.get(host, {}).get(resource)
    if claim is None or claim.level is None or not claim.generation:
        raise NotFound(f"the node of {host} does not claim {name!r} under a later generation now")
    row = world.topology.resources.get(resource)
    if row is not None and row.generation >= claim.generation:
        raise NotFound(f"{name} has generation {row.generation} by now: the claim of {host} is over")
    decision = on_drift(world, host, claim.store, claim.level, (now.base, now.clear_after_s))
    event = GuestClaimConfirmed(host, resource, claim.generation, by)
    about = resource_subject(resource)
    decision.add(NewEvent(event, about, now.wall_ns, "api", f"{about}/confirmed/{now.wall_ns}"))
    if row is not None:
        decision.assign.add(row.host)
    decision.assign.add(host)
    return decision
