"""haproxy and keepalived: one address for every API, and who of the controllers has it. Pure."""

from __future__ import annotations

from testbed.plan import CONTROLLERS, Checks, Node, Plan
from testbed.services import APIS, Api

STATS_PORT = 9000
"""On each controller: what its haproxy thinks of the back ends."""

_HOLDER, _OTHER, _LOSS = 120, 100, 30
"""Priorities. A holder without haproxy must fall below the other one."""

_CHECKS = {
    Checks.fast: ("500ms", "1", "700ms"),
    Checks.slow: ("1s", "2", "2s"),
}


def haproxy_cfg(plan: Plan, node: Node) -> str:
    """Its whole configuration on one controller.

    Repeating a request on another back end is what hides the death of one: at most 3 times, and only
    when nothing of an answer was seen.
    """
    every, fall, check = _CHECKS[plan.checks]
    head = f"""global
  maxconn 2000
  stats socket /run/haproxy.sock mode 600 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout check {check}
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
  option forwardfor
  default-server inter {every} fall {fall} rise 2 on-marked-down shutdown-sessions
listen stats
  bind {plan.address(node)}:{STATS_PORT}
  stats enable
  stats uri /
"""
    return head + "".join(_listen(plan, api) for api in APIS)


def _listen(plan: Plan, api: Api) -> str:
    servers = "".join(f"  server {each.name} {plan.address(each)}:{api.port} check\n" for each in CONTROLLERS)
    return f"""listen {api.name}
  bind {plan.vip}:{api.port}
  balance roundrobin
  option httpchk GET /
  http-check expect rstatus ^[234]
{servers}"""


def keepalived_conf(plan: Plan, node: Node) -> str:
    """Its whole configuration on one controller. The address moves when haproxy is gone for a second.

    Not when a busy machine lets keepalived itself wait: hence its priority and the timeout of its question.
    """
    peers = " ".join(plan.address(each) for each in CONTROLLERS if each is not node)
    return f"""global_defs {{
  enable_script_security
  script_user root
  vrrp_garp_master_refresh 10
  vrrp_priority -10
}}
vrrp_script haproxy_lives {{
  script "/usr/bin/pgrep -x haproxy"
  interval 1
  timeout 3
  fall 1
  rise 2
  weight -{_LOSS}
}}
vrrp_instance vip {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {_HOLDER if node.name == plan.vip_on else _OTHER}
  advert_int 0.5
  unicast_src_ip {plan.address(node)}
  unicast_peer {{ {peers} }}
  virtual_ipaddress {{ {plan.vip}/24 }}
  track_script {{ haproxy_lives }}
}}
"""
