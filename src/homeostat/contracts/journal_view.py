"""The journal as people are shown it: a sentence for each event, and the projects that may read it.

Added up from the records of the components; nothing is decided about an event itself. Invariant: what nobody
can name an owner of belongs to `infrastructure`, that is, to administrators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from homeostat.contracts.component import EventSentence, OwnerLookup
from homeostat.contracts.nouns import INFRASTRUCTURE
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.journal import Envelope

_ADMINISTRATORS = frozenset({str(INFRASTRUCTURE)})


@dataclass(frozen=True, slots=True)
class JournalView:
    """One for a list of components. `kinds` are the names of all their events."""

    sentences: tuple[EventSentence, ...]
    owners: tuple[OwnerLookup, ...]
    kinds: tuple[str, ...] = ()

    def sentence(self, event: object | None, kind: str, about: str = "") -> str:
        """The event in plain words. `about` is its subject; an unknown kind is named, never hidden."""
        said = (each(event, about) for each in self.sentences) if event is not None else ()
        return next(filter(None, said), f"{kind} (this version cannot read it)")

    def projects(self, connection: Connection, envelopes: Sequence[Envelope]) -> dict[int, frozenset[str]]:
        """The projects that may read each event, by its number."""
        found: dict[int, frozenset[str]] = {}
        for lookup in self.owners:
            for seq, projects in lookup(connection, envelopes).items():
                found[seq] = found.get(seq, frozenset()) | projects
        return {int(each.seq): found.get(int(each.seq), _ADMINISTRATORS) for each in envelopes}

    def visible(
        self, connection: Connection, caller: Caller, envelopes: Sequence[Envelope]
    ) -> list[Envelope]:
        """Those of the events that this caller may see, in their order."""
        projects = self.projects(connection, envelopes)
        return [each for each in envelopes if may_see(caller, projects[int(each.seq)])]


def may_see(caller: Caller, projects: frozenset[str]) -> bool:
    """Administrators see all; others what concerns their project, and never what is `infrastructure`'s."""
    return caller.role is Role.ADMIN or any(map(caller.may_read, projects - _ADMINISTRATORS))
