"""Faults in a server: pictures for notices, the write path, set points, panels, metrics, Doctor's log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from homeostat.contracts.component import MetricFamily, MetricLabels, ServedComponent, ServerParts
from homeostat.contracts.journal_view import JournalView
from homeostat.contracts.nouns import FaultKind
from homeostat.faults.api import FaultsApi
from homeostat.faults.deciders import FaultDeciders
from homeostat.faults.doctor_log import format_seconds, open_log
from homeostat.faults.notice_bridge import NO_DRILL_TAGS, NoticeBridge, load_pictures
from homeostat.faults.panels import FaultPanels, FaultSetPoints
from homeostat.fleet.probes import OutsideProbes
from homeostat.fleet.settings import NodeOwners
from homeostat.ingest.entry import IngestDependencies, PendingNotice
from homeostat.ingest.loop import IngestLoop
from homeostat.kernel.bus import Messages
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import BadInput
from homeostat.kernel.journal import Journal, JournalAppender
from homeostat.kernel.leadership import Leadership
from homeostat.kernel.loops import LoopLag
from homeostat.notices.attempts import PictureArchive
from homeostat.notices.delivery import Delivery
from homeostat.notices.subscriptions import Silences, Subscriptions
from homeostat.ports import DrillTags


def log_raised(log: logging.Logger, pending: Sequence[PendingNotice]) -> None:
    """One line a fault for Doctor's scripts, with the time of its detection, whenever this is written."""
    for each in pending:
        if each.transition == "raised":
            log.info("doctor monitor detected at %s", format_seconds(detected_ns(each)))


def detected_ns(pending: PendingNotice) -> int:
    """When the monitor knew: of a host when its witnesses agreed, of anything else the source's own stamp."""
    return pending.at_ns if pending.fault.kind is FaultKind.HOST_DOWN else pending.fault.raised_ns


async def lay_foundation(parts: ServerParts) -> None:
    """Notices that do not fit into memory find the pictures of their faults again."""
    tags = parts.find_or(DrillTags, NO_DRILL_TAGS)
    parts.put(PictureArchive, PictureArchive(partial(load_pictures, parts.find(Readers), tags)))


def ingest_dependencies(parts: ServerParts) -> IngestDependencies:
    """The write path decides about faults and queues their notices."""
    settings, lag, outside = parts.section("faults"), parts.find(LoopLag), parts.find(OutsideProbes)
    readers, leader = parts.find(Readers), parts.find(Leadership)
    bridge = parts.make(
        NoticeBridge,
        parts.find(Subscriptions),
        parts.find(Delivery),
        readers,
        parts.find(Silences),
        parts.find_or(DrillTags, NO_DRILL_TAGS),
    )
    return IngestDependencies(
        appender=parts.find(JournalAppender),
        readers=readers,
        bus=parts.find(Messages),
        clock=parts.find(Clock),
        herald=bridge,
        deciders=parts.make(FaultDeciders, settings, NodeOwners.of(parts.section("fleet"))),
        fleet=parts.section("fleet"),
        epoch=leader.epoch,
        own_lag_s=lambda: lag.worst_s,
        probed=lambda: outside.latest,
        probe_stale_s=outside.stale_s,
        on_committed=_doctor_log(settings.doctor_log_file),
        term_left_s=leader.left_s,
    )


async def assemble(parts: ServerParts) -> ServedComponent:
    """Nothing runs here: the write path is the server's own loop."""
    readers = parts.find(Readers)
    api = FaultsApi(
        readers,
        parts.find(Journal),
        parts.find(Subscriptions),
        parts.find(JournalView),
        parts.find_or(DrillTags, NO_DRILL_TAGS),
    )
    set_points = FaultSetPoints(readers, parts.find(Clock), parts.section("faults"))
    panels = FaultPanels(api)
    return ServedComponent(
        state={"faults": api},
        set_points=(set_points,),
        panels=(panels.lists, panels.chart),
        metrics=(partial(_open_faults, parts.find(IngestLoop)),),
    )


async def _open_faults(path: IngestLoop) -> Sequence[MetricFamily]:
    kinds = Counter(fault.kind for fault in path.world.faults.values())
    values: dict[MetricLabels, float] = {(("kind", kind.value),): kinds[kind] for kind in FaultKind}
    return [MetricFamily("faults_open", "Faults not cleared.", values)]


def _doctor_log(file: Path | None) -> Callable[[Sequence[PendingNotice]], None]:
    if file is None:
        return lambda _: None
    try:
        return partial(log_raised, open_log(file))
    except OSError as error:
        raise BadInput(
            "faults.doctor_log_file", str(file), f"a file that can be written ({error})"
        ) from error
