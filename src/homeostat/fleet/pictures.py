"""Pictures of hosts that come in parts: which resources a node spoke of, once it has spoken of all. No I/O.

A part may be lost, come twice, or come late. Invariants: parts of two pictures are never put together; a
picture that a part is missing of says nothing about what is gone, and is completed by the same part of a
repetition, since a node cuts the same picture in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.contracts.wire import Levels


@dataclass(slots=True)
class _Picture:
    of: tuple[str, str, int, int]
    parts: dict[int, frozenset[ResourceId]] = field(default_factory=dict)


@dataclass(slots=True)
class Pictures:
    """One unfinished picture a host at most: the latest one."""

    _unfinished: dict[HostId, _Picture] = field(default_factory=dict)

    def add(self, message: Levels) -> frozenset[ResourceId] | None:
        """Everything that the node has, when this was the last part that was missing; None until then."""
        reported = frozenset(level.resource for level in message.levels)
        of = (message.boot, message.incarnation, message.seq, message.parts)
        picture = self._unfinished.get(message.host)
        if picture is None or picture.of != of:
            picture = self._unfinished[message.host] = _Picture(of)
        picture.parts[message.part] = reported
        if len(picture.parts) < message.parts:
            return None
        del self._unfinished[message.host]
        return frozenset().union(*picture.parts.values())
