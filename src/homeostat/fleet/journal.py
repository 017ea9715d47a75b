"""The fleet in the journal: sentences of its events, whom they concern, what may be removed, what a replay
follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, select

from homeostat.contracts.events import fleet, resources
from homeostat.contracts.nouns import Mark
from homeostat.fleet.claims import claim_table
from homeostat.fleet.gate import EARLIER_NAMES
from homeostat.fleet.store import action_table, arming_table, node_table, resource_table
from homeostat.kernel import database, journal_rules
from homeostat.kernel.database import slices
from homeostat.kernel.journal import Envelope


def sentence(event: object, _about: str) -> str:
    match event:
        case fleet.JournalPruned():
            return f"Old history removed, up to event {event.through}"
        case fleet.HostJoined():
            return f"Host {event.host} joined"
        case fleet.AgentLost():
            return f"Node process on {event.host} lost: {event.reason}; its services and guests may still run"
        case fleet.AgentReturned():
            return f"Node process on {event.host} reports again"
        case fleet.ObservationsLost():
            return f"{event.count} observations of {event.host} lost for good"
        case fleet.TermTaken():
            return f"{event.holder} became leader, epoch {event.epoch}"
        case fleet.LoopCrashed():
            return f"Loop {event.loop} crashed and was restarted: {event.error}"
        case fleet.TokenIssued():
            return f"Token {event.token} issued: {event.role} of {event.owner}"
        case fleet.TokenRevoked():
            return f"Token {event.token} revoked"
        case fleet.ConsoleOpened():
            return f"{event.token} opened the dashboard in a browser, as {event.role} of {event.owner}"
        case fleet.ConsoleClosed():
            return f"{event.token} logged out of the dashboard"
        case _:
            return _of_hosts(event)


def _of_hosts(event: object) -> str:
    match event:
        case fleet.HostDown():
            return f"Host {event.host} is down: {event.reason}"
        case fleet.HostFactsChanged():
            memory = f"{event.memory_mb} MiB memory, {event.disk_gb} GiB disk"
            return f"Host {event.host} has {event.cpus} processors ({event.architecture}), {memory}"
        case fleet.HostBack():
            return f"Host {event.host} is back: {event.reason}"
        case fleet.HostFenced():
            return f"Host {event.host} is fenced ({event.driver}): {event.receipt}"
        case fleet.HostHeld():
            held = "holds" if event.held else "released"
            return f"{event.by} {held} host {event.host}: {event.reason}"
        case fleet.EvidenceLost():
            return f"State of the hosts unknown: {event.reason}"
        case fleet.EvidenceBack():
            return "State of the hosts known again"
        case fleet.ActRefused():
            return f"Action refused: {event.act} by {event.component}: {event.reason} ({event.detail})"
        case fleet.ClaimGiven():
            return (
                f"{event.host} has {event.work} {event.item} for {event.deadline_s:g} s (claim {event.claim})"
            )
        case fleet.ClaimEnded():
            return (
                f"claim {event.claim} of {event.host}: {event.outcome}{event.reason and ': ' + event.reason}"
            )
        case fleet.ComponentArmed():
            return f"{event.by} {'armed' if event.armed else 'disarmed'} {event.component}"
        case _:
            return _of_claims_and_clouds(event)


def _of_claims_and_clouds(event: object) -> str:
    match event:
        case fleet.NodeStoreFull():
            return f"Observation store of {event.host} cannot be written: {event.reason}"
        case fleet.NodeStoreWritable():
            return f"Observation store of {event.host} can be written again"
        case fleet.HostRemoved():
            gone = f", with {', '.join(event.resources)}" if event.resources else ""
            return f"{event.by} removed host {event.host} for good{gone}"
        case fleet.NodeClaimRefused():
            said = f" under generation {event.generation}" if event.generation else ""
            return f"Claim of {event.host} refused: {event.resource}{said}: {event.reason}"
        case fleet.GuestClaimConfirmed():
            where = f"is on {event.host} under generation {event.generation}"
            return f"{event.by} confirmed that {event.resource} {where}"
        case fleet.HostMarked(mark=Mark.MARK_DOWN):
            return f"Marked {event.host} down at cloud {event.cloud}"
        case fleet.HostMarked(mark=Mark.SET_ERROR):
            return f"Marked the guests of {event.host} in error at cloud {event.cloud}"
        case fleet.HostMarked(mark=Mark.MARK_UP):
            return f"Marked {event.host} up at cloud {event.cloud}"
        case fleet.HostMarked():
            return f"Removed the error marks of the guests of {event.host} at cloud {event.cloud}"
        case _:
            return ""


RETENTION = journal_rules.RetentionRules(
    prunable=(
        journal_rules.PrunableRows(
            "acts",
            action_table,
            action_table.c.id,
            action_table.c.intended_seq,
            action_table.c.outcome.is_not(None),
        ),
        journal_rules.PrunableRows(
            "claims", claim_table, claim_table.c.id, claim_table.c.given_seq, claim_table.c.outcome != ""
        ),
    ),
    bounds=lambda _before_ns: (
        select(func.min(action_table.c.intended_seq) - 1).where(action_table.c.outcome.is_(None)),
        select(func.min(claim_table.c.given_seq) - 1).where(claim_table.c.outcome == ""),
    ),
)


def find_owners(connection: Connection, envelopes: Sequence[Envelope]) -> Mapping[int, frozenset[str]]:
    """The owners of the resources that events are about: as the event says, else as the table does."""
    found: dict[int, frozenset[str]] = {}
    unnamed: dict[str, list[int]] = {}
    for each in envelopes:
        noun, _, name = each.subject.partition("/")
        if noun != "resource":
            continue
        if owner := each.payload.get("owner"):
            found[int(each.seq)] = frozenset({str(owner)})
        else:
            unnamed.setdefault(name, []).append(int(each.seq))
    columns = resource_table.c
    for names in slices(sorted(unnamed)):
        for name, owner in connection.execute(select(columns.id, columns.owner).where(columns.id.in_(names))):
            found |= dict.fromkeys(unnamed[name], frozenset({str(owner)}))
    return found


def _follow(rows: journal_rules.ReplayedRows, seq: int, subject: str, event: object) -> str:
    match event:
        case resources.ActionIntended():
            intended = {
                "verb": event.verb,
                "about": subject,
                "owner_of_act": event.owner_of_act,
                "intended_seq": seq,
                "outcome": None,
            }
            return rows.begin("action", event.action, seq, intended)
        case resources.ActionFinished():
            return rows.end("action", event.action, seq, {"outcome": event.outcome})
        case fleet.ClaimGiven():
            given = {
                "work": event.work,
                "item": event.item,
                "host": event.host,
                "epoch": event.epoch,
                "deadline_s": event.deadline_s,
                "given_seq": seq,
                "open_item": f"{event.work} {event.item}",
                "outcome": "",
            }
            return rows.begin("claim", event.claim, seq, given)
        case fleet.ClaimEnded():
            return rows.end("claim", event.claim, seq, {"open_item": None, "outcome": event.outcome})
        case fleet.ComponentArmed():
            for earlier in EARLIER_NAMES.get(event.component, ()):
                rows.of("arming").pop(earlier, None)
            rows.of("arming")[event.component] = {"armed": event.armed, "by": event.by}
        case fleet.HostJoined():
            rows.of("node")[event.host] = dict.fromkeys(FACTS)
        case fleet.HostFactsChanged():
            rows.of("node")[event.host] = {name: getattr(event, name) for name in FACTS}
        case fleet.HostRemoved():
            rows.of("node").pop(event.host, None)
        case fleet.TokenIssued():
            rows.of("token")[event.token] = {"role": event.role, "owner": event.owner}
        case fleet.TokenRevoked():
            rows.of("token").pop(event.token, None)
        case _:
            pass  # says nothing of these tables
    return ""


FACTS = ("cpus", "memory_mb", "disk_gb", "architecture")
"""The columns of a node's row that events determine; the others are as its node said last."""

REPLAY = journal_rules.ReplayRules(
    tables=(
        journal_rules.ReplayedTable("action", action_table, "id", "intended_seq"),
        journal_rules.ReplayedTable("claim", claim_table, "id", "given_seq"),
        journal_rules.ReplayedTable("node", node_table, "host"),
        journal_rules.ReplayedTable("arming", arming_table, "room"),
        journal_rules.ReplayedTable("token", database.token, "name"),
    ),
    follow=_follow,
)
