"""supervisord on each node: its settings, and what its log says of programs that do not stay up. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from testbed.plan import Node, Plan
from testbed.services import Program, is_restarted, programs

CONFIGURATION = "/etc/supervisor/testbed.conf"
"""Inside a node."""

LOGS = "/var/log/testbed"
"""Inside a node: one log for each program."""

_HEAD = f"""[unix_http_server]
file=/run/supervisor.sock
[supervisord]
nodaemon=true
user=root
logfile={LOGS}/supervisord.log
pidfile=/run/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///run/supervisor.sock
"""

_EXITED = re.compile(r"exited: (\S+) \((exit status [^;)]+|terminated by [^;)]+); not expected\)")


def supervisord_conf(plan: Plan, node: Node, only: Collection[str] = ()) -> str:
    """Every program of the node, or only some. A dead one is started on the next tick of a second."""
    return _HEAD + "".join(
        _program(program, restarted=is_restarted(plan, node, program))
        for program in programs(plan, node)
        if not only or program.name in only
    )


def _program(program: Program, *, restarted: bool) -> str:
    return f"""[program:{program.name}]
command={program.command}
autorestart={"true" if restarted else "false"}
startsecs=1
startretries=1000000
stopsignal={program.stop_signal}
stopwaitsecs=10
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={LOGS}/{program.name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""


def restless(log: str, *, deaths: int) -> dict[str, str]:
    """Programs that died at least so often by themselves, with how they ended last."""
    seen = _EXITED.findall(log)
    counted = Counter(name for name, _ in seen)
    last = dict(seen)
    return {name: f"{last[name]}, {count} times" for name, count in counted.items() if count >= deaths}
