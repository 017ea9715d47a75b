"""The lab as a site that can be drilled: its hosts and how they are reached, its services and who they are.

Pure. What a drill may do to a host is not here but in that host's own node.yaml.
"""

from __future__ import annotations

from typing import Any

from homeostat.contracts.nouns import HostId
from homeostat.lab.plan import (
    BALANCER_PROFILE,
    EDGES,
    HOSTS,
    LOOPBACK,
    NODE_PROFILE,
    UP,
    LabPlan,
    web_services,
)

NAME = "lab"


def site(plan: LabPlan) -> dict[str, Any]:
    """site.yaml. Every host is reached on this machine."""
    state, ports = plan.state, plan.ports
    configs = {host: {"config": str(state.node_config_file(host))} for host in (*HOSTS, *EDGES, UP)}
    return {
        "site": NAME,
        "server": {"url": plan.api_url, "token_file": str(state.admin_token_file)},
        "hosts": {
            host: {**config, **_machine(plan, host)} if host in HOSTS else config
            for host, config in configs.items()
        },
        "services": {
            "web": {
                "endpoint": plan.balancer_url,
                "hosts": {
                    each.host: {
                        "url": f"http://{LOOPBACK}:{ports[each.id]}",
                        "profile": each.id,
                        "resource": each.id,
                    }
                    for each in web_services()
                },
            },
            "balancer": {
                "endpoint": f"tcp://{LOOPBACK}:{ports['balancer']}",
                "holder": "listens",
                "hosts": {edge: {"profile": BALANCER_PROFILE} for edge in EDGES},
            },
            "node": {"hosts": {host: {"profile": NODE_PROFILE} for host in HOSTS}},
        },
    }


def _machine(plan: LabPlan, host: HostId) -> dict[str, Any]:
    """What answers as long as the host is on, and where it is switched off."""
    return {"probe": f"tcp://{LOOPBACK}:{plan.ports[f'machine-{host}']}", "power": {"host": str(UP)}}
