"""The catalogue of drills and suites: the shipped files, a folder of the user, and known aliases.

A user's file with the id of a shipped one is refused, not preferred: two drills of one name cannot be told
apart in a report.

Aliases are of three generations: the case specifications (tc001-tc008), the scope list of the same document
(other numbers for the same cases, and an id with a slash in it), and the later names of the tool that
carried them out. Full names are accepted, bare numbers never: tc003 is keystone in one place and neutron in
the other. An alias is never used as the name of a file.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from homeostat.drills.language.parser import load
from homeostat.drills.model import Drill, Suite
from homeostat.kernel.errors import BadInput, NotFound

CASES: Mapping[str, tuple[str, ...]] = {
    "nova-api-down": ("opnfv.ha.tc001.nova-api_service_down", "yardstick.ha.nova_api"),
    "neutron-server-down": (
        "opnfv.ha.tc002.neutron-server_service_down",
        "opnfv.ha.tc003.neutron-server_service_down",
        "yardstick.ha.neutron_server",
    ),
    "keystone-down": (
        "opnfv.ha.tc003.keystone_service_down",
        "opnfv.ha.tc004.keystone_service_down",
        "yardstick.ha.keystone",
    ),
    "glance-api-down": (
        "opnfv.ha.tc004.glance-api_service_down",
        "opnfv.ha.tc005.glance-api_service_down",
        "yardstick.ha.glance_api",
    ),
    "cinder-api-down": (
        "opnfv.ha.tc005.cinder-api_service_down",
        "opnfv.ha.tc006.cinder-api_service_down",
        "yardstick.ha.cinder_api",
    ),
    "controller-cpu-overload": (
        "opnfv.ha.tc006.cpu_overload",
        "opnfv.ha.tc009.cpu_overload",
        "yardstick.ha.cpu_load",
    ),
    "controller-disk-io-overload": (
        "opnfv.ha.tc007.disk_I/O_overload",
        "opnfv.ha.tc010.disk_I/O_block",
        "yardstick.ha.disk_load",
    ),
    "api-balancer-down": (
        "opnfv.ha.tc008.load_balance_service_down",
        "opnfv.ha.tc011.load_balance_service_down",
        "yardstick.ha.haproxy",
    ),
    "database-down": ("yardstick.ha.database",),
    "rabbitmq-down": ("yardstick.ha.rabbitmq",),
    "controller-restart": ("yardstick.ha.controller_restart",),
    "neutron-l3-agent-down": ("yardstick.ha.neutron_l3_agent",),
}
"""Our stable id of each case, and what it has been called. Not every case has a drill file here."""

_BARE_NUMBER = re.compile(r"(?:opnfv\.ha\.)?(tc\d{3})")
_CASE_OF_ALIAS = {alias: case for case, aliases in CASES.items() for alias in aliases}


def case_of(name: str) -> str:
    """Our id of what is meant; the name itself when it is no alias.

    BadInput with every candidate for a bare number; NotFound for a name of the family that nobody gave.
    """
    if name in _CASE_OF_ALIAS:
        return _CASE_OF_ALIAS[name]
    bare = _BARE_NUMBER.fullmatch(name)
    if bare is not None:
        candidates = [alias for alias in _CASE_OF_ALIAS if f".{bare[1]}." in alias]
        if candidates:
            raise BadInput("drill", name, f"the full name: {' or '.join(candidates)}")
    if name.startswith(("opnfv.", "yardstick.")) or bare is not None:
        raise NotFound(f"{name}: no case has this name")
    return name


SHIPPED = tuple(Path(__file__).parents[1] / "files" / each for each in ("lab", "opnfv-ha"))
"""One folder a kind of site: the lab, and a real OpenStack."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A drill or suite and its file."""

    found: Drill | Suite
    file: Path


@dataclass(frozen=True, slots=True)
class DrillCatalogue:
    """Every drill and suite by its id."""

    items: tuple[CatalogueEntry, ...]

    def drill(self, name: str) -> CatalogueEntry:
        """By id or by any of its aliases. NotFound says what there is."""
        return self._one(name, Drill)

    def suite(self, name: str) -> CatalogueEntry:
        return self._one(name, Suite)

    def any(self, name: str) -> CatalogueEntry:
        """A drill, else a suite."""
        return self._one(name, Drill, Suite)

    def _one(self, name: str, *kinds: type) -> CatalogueEntry:
        own = [each for each in self.items if isinstance(each.found, Drill) and name in each.found.aliases]
        wanted = own[0].found.id if own else case_of(name)
        for each in self.items:
            if isinstance(each.found, kinds) and each.found.id == wanted:
                return each
        if wanted in CASES:
            raise NotFound(f"{name}: {wanted} has no drill file here; write one as docs/drills.md says")
        known = ", ".join(each.found.id for each in self.items if isinstance(each.found, kinds))
        raise NotFound(f"{name}: no such drill; there are {known}")


def read_catalogue(folder: Path | None = None) -> DrillCatalogue:
    """The shipped ones and those of a folder. BadInput for a file that is none, or a name that is taken."""
    found: dict[str, CatalogueEntry] = {}
    for where in (*SHIPPED, folder):
        for path in sorted(where.glob("*.yaml")) if where else ():
            listed = CatalogueEntry(load(path), path)
            first = found.setdefault(listed.found.id, listed)
            if first is not listed:
                raise BadInput(str(path), listed.found.id, f"another name: {first.file} has this one")
    listing = sorted(found.values(), key=lambda each: (isinstance(each.found, Suite), each.found.id))
    made = DrillCatalogue(tuple(listing))
    for each in made.items:
        if isinstance(each.found, Suite):
            for name in each.found.drills:
                made.drill(name)
    return made


def ordered_drills(suite: Suite, shuffle_seed: int | None = None) -> Sequence[str]:
    """The drills of a suite in their order, or in the order of a seed: the same seed, the same order."""
    names = list(suite.drills)
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(names)
    return names
