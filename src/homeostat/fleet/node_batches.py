"""Much that has to be said, in messages that each are read. Pure: no I/O, no order of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from homeostat.contracts.wire import MESSAGE_BYTES_MAX, encode

BATCH_BYTES_MAX = MESSAGE_BYTES_MAX // 2 - 1024

P = TypeVar("P")


def batches(pieces: Iterable[P]) -> Iterator[tuple[P, ...]]:
    """Cut into messages of at most BATCH_BYTES_MAX, in order; one that is larger alone travels alone."""
    batch: list[P] = []
    used = 0
    for piece in pieces:
        size = len(encode(piece)) + 1
        if batch and used + size > BATCH_BYTES_MAX:
            yield tuple(batch)
            batch, used = [], 0
        batch.append(piece)
        used += size
    if batch:
        yield tuple(batch)
