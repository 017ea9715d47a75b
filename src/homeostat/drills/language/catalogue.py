"""Which drills and suites there are: the shipped ones, and a folder of one's own beside them.

A file of one's own with the id of a shipped one is refused, not preferred: two drills of one name cannot
be told apart in a report.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.language.aliases import CASES, case_of
from homeostat.drills.language.reading import load
from homeostat.drills.model import Drill, Suite
from homeostat.kernel.errors import BadInput, NotFound

SHIPPED = tuple(Path(__file__).parents[1] / "files" / each for each in ("lab", "opnfv-ha"))
"""One folder a kind of site: the lab, and a real OpenStack."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A drill or suite and its file."""

    found: Drill | Suite
    file: Path


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every drill and suite by its id."""

    items: tuple[Listed, ...]

    def drill(self, name: str) -> Listed:
        """By id or by any of its aliases. NotFound says what there is."""
        return self._one(name, Drill)

    def suite(self, name: str) -> Listed:
        """By id."""
        return self._one(name, Suite)

    def any(self, name: str) -> Listed:
        """A drill, else a suite."""
        return self._one(name, Drill, Suite)

    def _one(self, name: str, *kinds: type) -> Listed:
        own = [each for each in self.items if isinstance(each.found, Drill) and name in each.found.aliases]
        wanted = own[0].found.id if own else case_of(name)
        for each in self.items:
            if isinstance(each.found, kinds) and each.found.id == wanted:
                return each
        if wanted in CASES:
            raise NotFound(f"{name}: {wanted} has no drill file here; write one as docs/drills.md says")
        known = ", ".join(each.found.id for each in self.items if isinstance(each.found, kinds))
        raise NotFound(f"{name}: no such drill; there are {known}")


def catalogue(folder: Path | None = None) -> Catalogue:
    """The shipped ones and those of a folder. BadInput for a file that is none, or a name that is taken."""
    found: dict[str, Listed] = {}
    for where in (*SHIPPED, folder):
        for path in sorted(where.glob("*.yaml")) if where else ():
            listed = Listed(load(path), path)
            first = found.setdefault(listed.found.id, listed)
            if first is not listed:
                raise BadInput(str(path), listed.found.id, f"another name: {first.file} has this one")
    listing = sorted(found.values(), key=lambda each: (isinstance(each.found, Suite), each.found.id))
    made = Catalogue(tuple(listing))
    for each in made.items:
        if isinstance(each.found, Suite):
            for name in each.found.drills:
                made.drill(name)
    return made


def order(suite: Suite, shuffle_seed: int | None = None) -> Sequence[str]:
    """The drills of a suite in their order, or in the order of a seed: the same seed, the same order."""
    names = list(suite.drills)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(names)
    return names
