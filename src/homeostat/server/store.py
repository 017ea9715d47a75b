"""The server's store: the database under the term that this server holds, its one writer, and its readers.

The schema waits for the term: a newer standby must not change it under the server that still leads. On a full
disk the server starts with the room of its ballast, and is read-only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from homeostat.components import COMPONENTS, catalogue, follower_names
from homeostat.contracts.component import Component
from homeostat.contracts.events.fleet import TermTaken
from homeostat.kernel.appender import Appender
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers, has_schema, open_engine
from homeostat.kernel.errors import AlreadyDone, StoreFull
from homeostat.kernel.files import Ballast
from homeostat.kernel.follower import release_cursors_except
from homeostat.kernel.journal import Journal, JournalAppender, NewEvent, Submission
from homeostat.kernel.leadership import Leadership
from homeostat.migrations import upgrade
from homeostat.server.settings import ServerSettings

log = structlog.get_logger("store")


@dataclass(frozen=True, slots=True)
class Store:
    """The database, as its leader has it.

    `open_term` writes what begins a term, where the disk was too full for that; None when it is written.
    """

    leader: Leadership
    appender: Appender
    readers: Readers
    journal: Journal
    open_term: Callable[[], Awaitable[None]] | None = None


@asynccontextmanager
async def open_store(
    settings: ServerSettings,
    clock: Clock,
    components: tuple[Component, ...] = COMPONENTS,
    revisions: Sequence[Path] = (),
) -> AsyncIterator[Store]:
    """The term, the schema at this version, the one writer, and readers.

    The schema waits for the term: a newer standby must not change it under the server that still leads.
    """
    make_room_to_start(settings)
    engine, reading = open_engine(settings.database_url), open_engine(settings.database_url, read_only=True)
    events = catalogue(components)
    holder = f"{socket.gethostname()}/{os.getpid()}"
    try:
        if not has_schema(engine):
            upgrade(settings.database_url, revisions)
        async with Leadership.of(engine, holder, settings.term.ttl_s, clock) as leader:
            upgrade(settings.database_url, revisions)
            appender = Appender(
                engine, events, epoch=leader.epoch, settings=settings.appender_settings(), clock=clock
            )
            appender.start()
            leader.make_room = appender.make_room
            readers = Readers(reading)
            try:
                begin = partial(_open_term, leader, appender, readers, components)
                later = None if await _is_written(begin) else begin
                yield Store(leader, appender, readers, Journal(readers, events), later)
            finally:
                await appender.close()
                readers.close()
    finally:
        engine.dispose()
        reading.dispose()


START_BYTES = 1024 * 1024
"""Bytes that a start writes before anybody can say that the disk is full."""


def make_room_to_start(settings: ServerSettings) -> None:
    """Give the ballast back when the disk has no room for a start: only who runs can say what is wrong."""
    writer = settings.appender_settings()
    if writer.ballast is None:
        return
    ballast = Ballast(writer.ballast, writer.ballast_bytes)
    with suppress(OSError):
        if ballast.free_bytes < START_BYTES and ballast.release():
            log.warning(
                "the disk is full; the ballast is given back for this start", ballast=str(ballast.path)
            )


async def _is_written(begin: Callable[[], Awaitable[None]]) -> bool:
    try:
        await begin()
    except StoreFull as error:
        log.warning("started read-only", reason=str(error))
        return False
    return True


async def _open_term(
    leader: Leadership, appender: Appender, readers: Readers, components: tuple[Component, ...]
) -> None:
    """Say who leads, and give the cursors of removed followers back. StoreFull: to be repeated."""
    with suppress(AlreadyDone):  # what came after it was refused the last time
        await announce_leader(leader, appender)
    # Or the cursor of a component that is no longer listed would keep all history.
    gone = await release_cursors_except(appender, readers, follower_names(components))
    if gone:
        log.info("cursors of removed followers given back", followers=gone)


async def announce_leader(leader: Leadership, appender: JournalAppender) -> None:
    subject = f"term/{leader.epoch}"
    taken = NewEvent(
        TermTaken(leader.epoch, leader.holder),
        subject,
        leader.clock.wall_ns(),
        "server",
        subject,
        key=f"taken/{leader.epoch}",
    )
    await appender.append(Submission("term", (taken,)))
