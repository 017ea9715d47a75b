"""Keeps Python's collector of cyclic garbage from pausing the server in the middle of a storm.

A full collection looks at every object that lives: 0.1 s with the rows of ten thousand guests in memory, and
by default a storm of faults allocates enough to start one. We make few cycles, mostly with exceptions.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 100_000, 20, 50
"""New objects before the young ones are looked at; that often before older ones are. A thousand faults make
about 40 000 and nobody waits for a look at them: it takes 10 ms, and is had in `rest`."""
_WORTH = 10_000


def shorten() -> None:
    """What lives now is not looked at again; the rest is, but rarely. To be called once, after loading."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def rest() -> None:
    """Look at what is new, when that is much: when nobody waits. 3 ms, after a storm 15 ms."""
    young, middle, old = gc.get_count()
    if young >= _WORTH and gc.get_threshold()[0] == _YOUNG:
        # The collector itself looks at older ones only when there are too many young ones, which is now rare.
        gc.collect(2 if old > _OLD else 1 if middle > _MIDDLE else 0)
