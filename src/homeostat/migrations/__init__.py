"""The schema's history, run by `homeostat.kernel.database.upgrade`.

One line of revisions, never two heads. A file is `versions/NNNN_<room>_<what>.py`, its revision id is `NNNN`,
its `down_revision` the number before: 0001 is the kernel's, each room with tables adds the next free number.
A published revision is never edited. A room writes its revision by hand (the names come from the naming
convention of `METADATA`: `pk_`, `uq_`, `ix_` with table and columns) and lists its `store` module in
`SCHEMAS`; tests/contracts compares the two on both engines.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

SCHEMAS = (
    "homeostat.fleet.store",
    "homeostat.faults.store",
    "homeostat.notices.store",
    "homeostat.notices.silence_store",
    "homeostat.web.store",
    "homeostat.drills.store",
)
"""Modules that register tables on `METADATA`, besides the kernel."""


def load_schemas() -> tuple[str, ...]:
    """Import every module of `SCHEMAS` that this installation has; returns their names."""
    found = tuple(name for name in SCHEMAS if _is_there(name))
    for name in found:
        import_module(name)
    return found


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the room itself is not there
        return False
