"""The list of components, one line each, and what the processes add up from their records.

Importing this module loads records and nothing else: the references in them are resolved by the functions
below, each in the process that needs it. Every function takes the list as an argument, so that a test or a
tool can add up another one. A record earlier in the list is served earlier: its router, its tables, its part
of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from homeostat.contracts.component import (
    CliEntry,
    Component,
    ExposureRow,
    InvariantChecker,
    NavigationEntry,
    Reference,
    ServedComponent,
    ServerParts,
    SimulatedUse,
)
from homeostat.contracts.nouns import HostId
from homeostat.drills.component import COMPONENT as DRILLS
from homeostat.faults.component import COMPONENT as FAULTS
from homeostat.fleet.component import COMPONENT as FLEET
from homeostat.leases.component import COMPONENT as LEASES
from homeostat.notices.component import COMPONENT as NOTICES
from homeostat.recovery.component import COMPONENT as RECOVERY
from homeostat.resources.component import COMPONENT as RESOURCES

if TYPE_CHECKING:
    from sqlalchemy import Table

    from homeostat.contracts.journal_view import JournalView
    from homeostat.kernel.journal import EventCatalogue
    from homeostat.kernel.journal_rules import ReplayRules, RetentionRules

COMPONENTS: tuple[Component, ...] = (
    FLEET,
    RESOURCES,
    DRILLS,
    FAULTS,
    LEASES,
    NOTICES,
    RECOVERY,
)

FRAME_TABLES = ("homeostat.web.sessions",)
"""Modules outside of every component that register tables, besides the kernel's own."""
FRAME_NAVIGATION = (NavigationEntry("", "Overview", 0), NavigationEntry("journal", "Journal", 30))


def load_schemas(components: Iterable[Component] = COMPONENTS) -> tuple[str, ...]:
    """Import every module that registers tables; returns their names."""
    references = [Reference[object](name) for name in FRAME_TABLES]
    references += [table for each in components for table in each.tables]
    for reference in references:
        reference.resolve()
    return tuple(reference.place for reference in references)


def known_tables(components: Iterable[Component] = COMPONENTS) -> tuple[Table, ...]:
    """The tables of the kernel, of the frame, and of the components."""
    from sqlalchemy import Table

    from homeostat.kernel import database

    frame = [Reference[Any](name) for name in FRAME_TABLES]
    modules = [database, *(each.resolve() for each in frame)]
    modules += [table.resolve() for each in components for table in each.tables]
    return tuple(part for module in modules for part in vars(module).values() if isinstance(part, Table))


@cache
def catalogue(components: tuple[Component, ...] = COMPONENTS) -> EventCatalogue:
    """Every event that this installation can read and write. ValueError: two have the same name."""
    from homeostat.kernel.journal import EventCatalogue

    modules = [events.resolve() for each in components for events in each.events]
    histories = [history.resolve() for each in components for history in each.history]
    return EventCatalogue(
        (event for module in modules for event in module.EVENTS),
        {key: upcast for history in histories for key, upcast in history.UPCASTS.items()},
        {old: new for history in histories for old, new in history.EARLIER_KINDS.items()},
    )


@cache
def journal_view(components: tuple[Component, ...] = COMPONENTS) -> JournalView:
    """The sentences of events, and who may read them."""
    from homeostat.contracts.journal_view import JournalView

    return JournalView(
        sentences=tuple(each.sentence.resolve() for each in components if each.sentence is not None),
        owners=tuple(each.owners.resolve() for each in components if each.owners is not None),
        kinds=tuple(sorted(catalogue(components).kinds())),
    )


def retention_rules(components: Iterable[Component] = COMPONENTS) -> tuple[RetentionRules, ...]:
    """What old history may go, and what is still open."""
    return tuple(each.retention.resolve() for each in components if each.retention is not None)


def replay_rules(components: Iterable[Component] = COMPONENTS) -> tuple[ReplayRules, ...]:
    """How the events of the journal are followed and compared with the tables."""
    return tuple(each.replay.resolve() for each in components if each.replay is not None)


def follower_names(components: Iterable[Component] = COMPONENTS) -> frozenset[str]:
    """The followers of the journal; every other cursor is of a component that is gone."""
    return frozenset(name for each in components for name in each.followers)


def armable_names(components: Iterable[Component] = COMPONENTS) -> tuple[str, ...]:
    """The names by which people let a component take disruptive actions."""
    return tuple(name for each in components for name in each.armed)


def checkers(components: Iterable[Component] = COMPONENTS) -> tuple[InvariantChecker, ...]:
    """The invariants of the components."""
    return tuple(checker.resolve() for each in components for checker in each.checkers)


def simulated_uses(components: Iterable[Component] = COMPONENTS) -> dict[str, SimulatedUse]:
    """What people do with components in the simulator, by component."""
    return {each.name: each.simulated_use.resolve() for each in components if each.simulated_use is not None}


def navigation(components: Iterable[Component] = COMPONENTS) -> tuple[NavigationEntry, ...]:
    found = [*FRAME_NAVIGATION, *(entry for each in components for entry in each.navigation)]
    return tuple(sorted(found, key=lambda entry: entry.rank))


def routers(components: Iterable[Component] = COMPONENTS) -> tuple[Any, ...]:
    return tuple(router.resolve() for each in components for router in each.routers)


def cli_entries(components: Iterable[Component] = COMPONENTS) -> Iterator[CliEntry]:
    """The commands: groups first, then what belongs into groups of others."""
    entries = [entry for each in components for entry in each.cli]
    yield from (entry for entry in entries if not entry.under)
    yield from (entry for entry in entries if entry.under)


def settings_sections(components: Iterable[Component] = COMPONENTS) -> dict[str, type]:
    """The models of the sections of server.yaml, by component."""
    return {each.name: each.settings.resolve() for each in components if each.settings is not None}


def write_path(components: Iterable[Component] = COMPONENTS) -> Callable[[ServerParts], Any]:
    """The function that makes the dependencies of the write path. LookupError: no component has it."""
    found = [each.write_path for each in components if each.write_path is not None]
    if len(found) != 1:
        raise LookupError(f"{len(found)} components equip the write path; one must")
    return found[0].resolve()


async def lay_foundations(parts: ServerParts, components: Iterable[Component] = COMPONENTS) -> None:
    """Make what the write path stands on."""
    for each in components:
        if each.foundation is not None:
            await each.foundation.resolve()(parts)


async def serve_components(
    parts: ServerParts, components: Iterable[Component] = COMPONENTS
) -> list[ServedComponent]:
    """Make every component's part of a server, in the order of the list."""
    return [await each.server.resolve()(parts) for each in components if each.server is not None]


async def exposure_rows(
    parts: ServerParts, host: HostId, components: Iterable[Component] = COMPONENTS
) -> Sequence[ExposureRow]:
    """What the death of a host would mean, by the components that say so."""
    named = [each.exposure.resolve() for each in components if each.exposure is not None]
    return [row for exposure in named for row in await exposure(parts, host)]
