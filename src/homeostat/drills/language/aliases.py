"""What others call our drills. Pure.

Three generations of names meet here: the case specifications (tc001-tc008), the scope list of the same
document (other numbers for the same cases, and an id with a slash in it), and the later names of the tool
that carried them out. Full names are accepted, bare numbers never: tc003 is keystone in one place and neutron
in the other.
An alias is never used as the name of a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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

_BARE = re.compile(r"(?:opnfv\.ha\.)?(tc\d{3})")
_OF = {alias: case for case, aliases in CASES.items() for alias in aliases}


def case_of(name: str) -> str:
    """Our id of what is meant; the name itself when it is no alias.

    BadInput with every candidate for a bare number; NotFound for a name of the family that nobody gave.
    """
    if name in _OF:
        return _OF[name]
    bare = _BARE.fullmatch(name)
    if bare is not None:
        candidates = [alias for alias in _OF if f".{bare[1]}." in alias]
        if candidates:
            raise BadInput("drill", name, f"the full name: {' or '.join(candidates)}")
    if name.startswith(("opnfv.", "yardstick.")) or bare is not None:
        raise NotFound(f"{name}: no case has this name")
    return name
