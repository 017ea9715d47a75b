"""Every error Homeostat raises on purpose.

    HomeostatError
    ├── RetryLater            the same call may succeed later; loops back off and try again
    │   ├── StoreUnavailable      the database does not answer
    │   ├── StoreFull             the disk is full; the store is read-only until there is room
    │   └── BusUnavailable        NATS does not answer
    └── GiveUp                repeating the call cannot help
        ├── BadInput              a field, its value, and what would be accepted
        │   └── Conflict          the value is fine, but something with that name is already there
        ├── AlreadyDone           the journal holds this submission; a re-run changed nothing
        ├── NotAllowed            who you are does not permit this
        ├── NotFound              no such thing, or not yours
        ├── AlreadyRunning        another process owns this directory or port
        ├── CorruptState          a file of ours cannot be read; it is named, nothing is overwritten
        └── Deposed               another server holds the term; this process must stop

A message is one line a person can act on: what is wrong, the value seen, the remedy. Standard library only,
python3.9: it is shipped to hosts.
"""

from __future__ import annotations


class HomeostatError(Exception):
    """Root of the tree. Never raised itself."""


class RetryLater(HomeostatError):
    """The same call may succeed later."""


class StoreUnavailable(RetryLater):
    """The database does not answer."""


class StoreFull(RetryLater):
    """The disk is full; nothing more is written until there is room."""


class BusUnavailable(RetryLater):
    """NATS does not answer."""


class GiveUp(HomeostatError):
    """Repeating the call cannot help."""


class BadInput(GiveUp):
    """One field is not acceptable. `field` is a dotted path, `accepted` says what would be."""

    def __init__(self, field: str, value: object, accepted: str) -> None:
        self.field, self.value, self.accepted = field, value, accepted
        wrong = "nothing is given" if value is None else f"{_shown(value)} is not accepted"
        super().__init__(f"{field}: {wrong}; {accepted}")


class Conflict(BadInput):
    """The value is fine, but something with that name is already there."""


class AlreadyDone(GiveUp):
    """The journal holds this submission; a re-run changed nothing."""


class NotAllowed(GiveUp):
    """Who you are does not permit this."""


class NotFound(GiveUp):
    """No such thing, or not yours: the two are never told apart."""


class AlreadyRunning(GiveUp):
    """Another process owns this directory or port."""


class CorruptState(GiveUp):
    """A file of ours cannot be read."""


class Deposed(GiveUp):
    """Another server holds the term."""


_SHOWN_MOST = 160


def _shown(value: object) -> str:
    """The value on one line. Of a path only the whole helps; of a long text its two ends."""
    text = repr(value)
    if len(text) <= _SHOWN_MOST:
        return text
    return text[: _SHOWN_MOST - 43] + "..." + text[-40:]
