"""Says every 30 s, through neutron's own RPC, that an Open vSwitch agent lives on this host.

Runs inside the compute node, in the virtual environment of OpenStack. There is no switch: ports are bound
because ml2 believes in the agent, and no packet of a guest ever flows.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from neutron.agent import rpc
from neutron.common import config
from neutron.conf.agent import common
from neutron_lib import context
from neutron_lib.agent import topics
from oslo_config import cfg

_EVERY_S = 30
_RETRY_S = 3


def _state(host: str) -> dict[str, Any]:
    return {
        "binary": "neutron-openvswitch-agent",
        "host": host,
        "topic": "N/A",
        "agent_type": "Open vSwitch agent",
        "start_flag": True,
        "configurations": {
            "tunnel_types": ["vxlan"],
            "tunneling_ip": socket.gethostbyname(host),
            "bridge_mappings": {},
            "integration_bridge": "br-int",
            "datapath_type": "system",
            "l2_population": False,
            "in_distributed_mode": False,
            "log_agent_heartbeats": False,
        },
    }


def main() -> None:
    """Until it is killed. A failed report is repeated soon."""
    config.register_common_config_options()
    common.register_agent_state_opts_helper(cfg.CONF)
    settings = ["/etc/neutron/neutron.conf", "/etc/neutron/plugins/ml2/ml2_conf.ini"]
    config.init([word for path in settings for word in ("--config-file", path)])
    reports = rpc.PluginReportStateAPI(topics.REPORTS)
    state = _state(socket.gethostname())
    while True:
        try:
            reports.report_state(context.get_admin_context_without_session(), state, True)
        except Exception as error:  # whatever it is, the next report may succeed
            print(f"not reported: {error!r}", flush=True)
            time.sleep(_RETRY_S)
        else:
            state["start_flag"] = False
            time.sleep(_EVERY_S)


if __name__ == "__main__":
    main()
