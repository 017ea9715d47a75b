"""Keeps Python's collector of cyclic garbage from pausing the server in the middle of a storm.

A full collection looks at every object that lives: 0.1 s with the rows of ten thousand guests in memory, and
by default a storm of faults allocates enough to start one. We make few cycles, mostly with exceptions.
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 20_000, 20, 50
"""New objects before the young ones are looked at, which takes 1 ms; that often before older ones are."""


def shorten() -> None:
    """What lives now is not looked at again; the rest is, but rarely. To be called once, after loading."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
