"""Which number each endpoint of a changed subscription has. Pure.

A number is part of the keys under which a consumer was told. So an address keeps its number when others come
and go; a new address in the place of an old one is the same consumer, moved, and keeps the number, so that
what waits for it goes there; everything else gets a number that was never used.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.notices.model import Endpoint, Format

STREAM_ONLY = (("", Format.JSON),)
"""What is wanted by who gives no URL."""


def numbered(
    there: Sequence[Endpoint], wanted: Sequence[tuple[str, Format]], last_number: int
) -> tuple[Endpoint, ...]:
    """The endpoints that are wanted, numbered. `last_number` is the highest one under which anybody was told.

    `wanted` has no URL twice.
    """
    asked = wanted or STREAM_ONLY
    by_url = {each.url: each.number for each in there}
    staying = {url for url, _ in asked} & by_url.keys()
    last = max([last_number, *by_url.values()], default=0)
    made = []
    for index, (url, shape) in enumerate(asked):
        before = there[index] if index < len(there) else None
        if url in staying:
            number = by_url[url]
        elif before is not None and before.url not in staying and before.url and url:
            number = before.number
        else:
            last += 1
            number = last
        made.append(Endpoint(number, url, shape))
    return tuple(made)
