"""The OCF resource agent contract as values: names, exit codes, environment, what an agent said.

Pure: nothing is run or read here. Sources: OCF Resource Agent API 1.1 and what Pacemaker adds to it
(`OCF_RESKEY_CRM_meta_*`, in milliseconds; `ocf-exit-reason:` lines).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path

from homeostat.kernel.errors import BadInput

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_AGENT = re.compile(rf"ocf:({_NAME}):({_NAME})")
_EXIT_REASON = "ocf-exit-reason:"
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = ("HOME", "LANG", "LOGNAME", "TMPDIR", "TZ", "USER")
SHIPPED_PROVIDER = "homeostat"
"""Agents of this provider come with the product, all others from `ocf_root`."""


class OcfCode(IntEnum):
    """Exit codes of an agent. Others exist (129..255: a signal, seen through a shell) and are soft errors."""

    SUCCESS = 0
    ERR_GENERIC = 1
    ERR_ARGS = 2
    ERR_UNIMPLEMENTED = 3
    ERR_PERM = 4
    ERR_INSTALLED = 5
    ERR_CONFIGURED = 6
    NOT_RUNNING = 7
    RUNNING_PROMOTED = 8
    FAILED_PROMOTED = 9
    DEGRADED = 190
    DEGRADED_PROMOTED = 191


class Answer(Enum):
    """What an action's end means. Soft: try again here; hard: not on this host; fatal: not as configured."""

    OK = "ok"
    NOT_RUNNING = "not running"
    SOFT = "soft error"
    HARD = "hard error"
    FATAL = "fatal error"
    TIMED_OUT = "timed out"


_ANSWERS = {
    OcfCode.SUCCESS: Answer.OK,
    OcfCode.RUNNING_PROMOTED: Answer.OK,
    OcfCode.DEGRADED: Answer.OK,
    OcfCode.DEGRADED_PROMOTED: Answer.OK,
    OcfCode.NOT_RUNNING: Answer.NOT_RUNNING,
    OcfCode.ERR_ARGS: Answer.HARD,
    OcfCode.ERR_UNIMPLEMENTED: Answer.HARD,
    OcfCode.ERR_PERM: Answer.HARD,
    OcfCode.ERR_INSTALLED: Answer.HARD,
    OcfCode.ERR_CONFIGURED: Answer.FATAL,
}


def answer_of(code: int) -> Answer:
    """The class of an exit code; what the contract does not name is a soft error."""
    try:
        return _ANSWERS.get(OcfCode(code), Answer.SOFT)
    except ValueError:
        return Answer.SOFT


@dataclass(frozen=True, slots=True)
class AgentName:
    """`ocf:PROVIDER:TYPE`."""

    provider: str
    type: str

    def __str__(self) -> str:
        return f"ocf:{self.provider}:{self.type}"

    @classmethod
    def parse(cls, text: str) -> AgentName:
        """BadInput unless it is `ocf:PROVIDER:TYPE` of plain names: no slash ever reaches a path."""
        match = _AGENT.fullmatch(text)
        if match is None:
            raise BadInput("agent", text, "write ocf:PROVIDER:TYPE, as in ocf:homeostat:process")
        return cls(match[1], match[2])


@dataclass(frozen=True, slots=True)
class Call:
    """One action of one resource. `interval_s` 0 makes a monitor a probe."""

    agent: AgentName
    executable: Path
    resource: str
    verb: str
    timeout_s: float
    parameters: Mapping[str, str]
    interval_s: float = 0.0


def environment(call: Call, ocf_root: Path, scratch: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Everything an agent finds in its environment; of ours only a few harmless names, never a secret."""
    found = {name: inherited[name] for name in _PASSED_ON if name in inherited}
    found |= {f"OCF_RESKEY_{name}": value for name, value in call.parameters.items()}
    return found | {
        "PATH": _SEARCH_PATH,
        "OCF_ROOT": str(ocf_root),
        "OCF_RA_VERSION_MAJOR": "1",
        "OCF_RA_VERSION_MINOR": "1",
        "OCF_RESOURCE_INSTANCE": call.resource,
        "OCF_RESOURCE_TYPE": call.agent.type,
        "OCF_RESOURCE_PROVIDER": call.agent.provider,
        "OCF_CHECK_LEVEL": "0",
        "OCF_RESKEY_CRM_meta_timeout": str(round(call.timeout_s * 1000)),
        "OCF_RESKEY_CRM_meta_interval": str(round(call.interval_s * 1000)),
        "OCF_RESKEY_CRM_meta_name": call.verb,
        "__OCF_ACTION": call.verb,
        "HA_RSCTMP": str(scratch),
    }


def exit_reason(stderr: str) -> str:
    """The last reason the agent gave on standard error, one line of at most 200 characters, or nothing."""
    reasons = [line for line in stderr.splitlines() if line.startswith(_EXIT_REASON)]
    if not reasons:
        return ""
    text = reasons[-1].removeprefix(_EXIT_REASON)
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200]
