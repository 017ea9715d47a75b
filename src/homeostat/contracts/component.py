"""The record that a component exports: references to everything that the processes take from it.

A reference is a place in the code as text, resolved by the process that needs it. So importing a record
loads nothing: the command line and the node process stay as light as they are. Beside the record stand the
Protocols of what its references resolve to. Types only; no third-party import and no noun of a component.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

from homeostat.contracts.nouns import HostId, Owner, SetPoint

if TYPE_CHECKING:
    from random import Random

    from sqlalchemy import Connection

    from homeostat.kernel.access import Caller
    from homeostat.kernel.journal import Envelope, Upcast
    from homeostat.kernel.listeners import HttpListener
    from homeostat.kernel.loops import Task

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An HTTP application: it is called with scope, receive and send."""

T_co = TypeVar("T_co", covariant=True)
P = TypeVar("P")
D = TypeVar("D")
Q = ParamSpec("Q")


@dataclass(frozen=True)  # without slots: `Reference[X](place)` sets an attribute of its own
class Reference(Generic[T_co]):
    """A place in the code: `homeostat.drills.api:router`, or a module when there is no colon."""

    place: str

    def resolve(self) -> T_co:
        """Import it. ImportError or AttributeError: the record is wrong."""
        module, _, name = self.place.partition(":")
        found = import_module(module)
        return cast(T_co, getattr(found, name) if name else found)


class EventModule(Protocol):
    """A module of `contracts.events`, or one like it."""

    EVENTS: tuple[type, ...]


class EventHistory(Protocol):
    """How events of older versions are read: upcasts by kind and version, present kinds by earlier ones."""

    UPCASTS: Mapping[tuple[str, int], Upcast]
    EARLIER_KINDS: Mapping[str, str]


class EventSentence(Protocol):
    """The sentence of `explain` for an event about a subject; empty for an event of another component."""

    def __call__(self, event: object, about: str, /) -> str: ...


class OwnerLookup(Protocol):
    """By sequence number: the projects that events concern. Without those that the component cannot name."""

    def __call__(
        self, connection: Connection, envelopes: Sequence[Envelope], /
    ) -> Mapping[int, frozenset[str]]: ...


class SetPointSource(Protocol):
    """Set points, measured on what this caller may read."""

    def __call__(self, caller: Caller, /) -> Awaitable[Sequence[SetPoint]]: ...


class PanelPlace(Enum):
    """Where a panel of the front page stands. All but `STILL` are made anew whenever something happens."""

    BESIDE = "beside the set points"
    BELOW = "below them"
    STILL = "at the end, and left as it is"


@dataclass(frozen=True, slots=True)
class OverviewPanel:
    """A part of the front page: a template of `homeostat.web` with its values, and a few words at the top.

    Without a template it is those words only. `headline` is shown, `summary` is read aloud when it changes.
    `is_unsure`: not all is well.
    """

    template: str = ""
    place: PanelPlace = PanelPlace.BELOW
    values: Mapping[str, object] = field(default_factory=dict)
    headline: str = ""
    summary: str = ""
    is_unsure: bool = False


class PanelSource(Protocol):
    """A panel of the front page with what this caller may read."""

    def __call__(self, caller: Caller, /) -> Awaitable[OverviewPanel]: ...


MetricLabels = tuple[tuple[str, str], ...]
"""Names and values of labels."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A gauge of /metrics, its name without `homeostat_`: each value under its labels."""

    name: str
    about: str
    values: Mapping[MetricLabels, float]


class MetricSource(Protocol):
    """Numbers of the whole installation, now. RetryLater: they are left out this time."""

    def __call__(self) -> Awaitable[Sequence[MetricFamily]]: ...


class ServerParts:
    """The parts of a server that exist so far, each found by its type. Made by the process that assembles.

    `section` gives the settings of a component by its name.
    """

    def __init__(self, section: Callable[[str], Any]) -> None:
        self.section = section
        self._parts: dict[type, object] = {}

    def put(self, kind: type[P], part: P) -> P:
        """Keep a part under its type; a later one takes its place."""
        self._parts[kind] = part
        return part

    def make(self, kind: Callable[Q, P], /, *arguments: Q.args, **named: Q.kwargs) -> P:
        """Make a part from its class, and keep it under that."""
        return self.put(cast(type[P], kind), kind(*arguments, **named))

    def find(self, kind: type[P]) -> P:
        """The part of that type. LookupError: nothing has made it yet."""
        if kind not in self._parts:
            raise LookupError(f"no part of this server is a {kind.__name__} yet")
        return cast(P, self._parts[kind])

    def find_or(self, kind: type[P], otherwise: D) -> P | D:
        """The same, with a value for a server that has none."""
        return cast(P | D, self._parts.get(kind, otherwise))


@dataclass(frozen=True, slots=True)
class ServedListener:
    """A foreign protocol that a component speaks, on a listener of its own."""

    listener: HttpListener
    app: AsgiApp


@dataclass(frozen=True, slots=True)
class ServedComponent:
    """What a component adds to a running server.

    `state` is what its routes find in `app.state`; `listeners` are open while this server leads.
    """

    loops: tuple[Task, ...] = ()
    state: Mapping[str, object] = field(default_factory=dict)
    set_points: tuple[SetPointSource, ...] = ()
    panels: tuple[PanelSource, ...] = ()
    metrics: tuple[MetricSource, ...] = ()
    listeners: tuple[ServedListener, ...] = ()


class Foundation(Protocol):
    """Puts parts that the write path stands on into the server's; called in the order of the list."""

    def __call__(self, parts: ServerParts, /) -> Awaitable[None]: ...


class ServerAssembly(Protocol):
    """Makes a component's part of a server; the write path exists, nothing runs yet."""

    def __call__(self, parts: ServerParts, /) -> Awaitable[ServedComponent]: ...


@dataclass(frozen=True, slots=True)
class ExposureRow:
    """One consequence that the death of a host would have. Only who may read `owner` sees it."""

    component: str
    subject: str
    owner: Owner
    says: str


class HostExposure(Protocol):
    """The consequences of a host's death for a component, predicted; nothing is changed."""

    def __call__(self, parts: ServerParts, host: HostId, /) -> Awaitable[Sequence[ExposureRow]]: ...


@dataclass(frozen=True, slots=True)
class ExposureSource:
    """The consequences of a host's death, added up from all components."""

    rows: Callable[[HostId], Awaitable[Sequence[ExposureRow]]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be. `about` is a journal subject or an id, `says` a sentence."""

    invariant: str
    about: str
    says: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.about}: {self.says}"


class InvariantChecker(Protocol):
    """Yields the violations that it finds in the evidence (`homeostat.sim.checkers`) and changes nothing."""

    def __call__(self, evidence: Any, /) -> Iterator[Violation]: ...


class SimulatedUse(Protocol):
    """People who use a component of a simulated server. It ends by itself and leaves nothing behind."""

    def __call__(self, parts: ServerParts, chance: Random, /) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """An entry of the dashboard's navigation. Entries stand in the order of `rank`."""

    name: str
    title: str
    rank: int


@dataclass(frozen=True, slots=True)
class CliEntry:
    """A group of commands (a typer application) or one command (a function) of `homeostat`.

    `under` is the group that it belongs to, empty for the top. A group comes before what is under it.
    """

    name: str
    commands: Reference[Any]
    under: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """Everything that the processes take from a component. `name` is its key in server.yaml, too.

    tables      modules that register tables; each has its revisions in the one history of `migrations`
    settings    the pydantic model of its section in server.yaml
    events      modules with `EVENTS`
    history     how older versions of these events are read
    sentence    the sentences of its events
    owners      the projects that its events concern
    armed       the names by which people let it take disruptive actions
    retention   `kernel.journal_rules.RetentionRules`: rows that may go, and what is still open
    replay      `kernel.journal_rules.ReplayRules`: how `journal verify` follows its events
    foundation  makes what the write path stands on
    followers   the names of its followers of the journal (`kernel.follower`), each with a cursor
    write_path  the dependencies of the write path; one component of a server has it
    server      makes its loops, its set points, panels and metrics, and what its routes stand on
    routers     routers of the API and of its pages
    navigation  where its pages are found
    cli         its commands
    exposure    what a host's death would mean to it
    checkers    its invariants, for the simulator and `homeostat check`
    simulated_use  what people do with it while a simulated server lives
    not_simulated  why the simulator does not run its loops; empty when it does
    """

    name: str
    summary: str
    tables: tuple[Reference[Any], ...] = ()
    settings: Reference[type] | None = None
    events: tuple[Reference[EventModule], ...] = ()
    history: tuple[Reference[EventHistory], ...] = ()
    sentence: Reference[EventSentence] | None = None
    owners: Reference[OwnerLookup] | None = None
    armed: tuple[str, ...] = ()
    retention: Reference[Any] | None = None
    replay: Reference[Any] | None = None
    foundation: Reference[Foundation] | None = None
    followers: tuple[str, ...] = ()
    write_path: Reference[Callable[[ServerParts], Any]] | None = None
    server: Reference[ServerAssembly] | None = None
    routers: tuple[Reference[Any], ...] = ()
    navigation: tuple[NavigationEntry, ...] = ()
    cli: tuple[CliEntry, ...] = ()
    exposure: Reference[HostExposure] | None = None
    checkers: tuple[Reference[InvariantChecker], ...] = ()
    simulated_use: Reference[SimulatedUse] | None = None
    not_simulated: str = ""
