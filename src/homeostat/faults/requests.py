"""What other loops want in the journal, in its place among the faults: a change of the entry, and who waits.

It neither decides nor commits: the fault path takes it into an entry. Invariant: whoever waits is answered
once, after the commit or with the reason why there was none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from homeostat.faults.entry import Entry
from homeostat.kernel.errors import StoreUnavailable
from homeostat.kernel.journal import Seq


@dataclass(frozen=True, slots=True)
class Request:
    """Something that another loop wants in the journal, and who waits for it. `last`: behind all faults."""

    change: Callable[[Entry], None]
    done: asyncio.Future[Seq]
    last: bool = False

    def change_in(self, entry: Entry) -> int:
        """How many events there are with those of the request; 0 when it has none."""
        before = len(entry.events)
        self.change(entry)
        return len(entry.events) if len(entry.events) > before else 0

    def refuse(self, error: BaseException) -> None:
        """Tell who waits that it was not committed."""
        if not self.done.done():
            self.done.set_exception(StoreUnavailable(f"not committed: {error}"))
