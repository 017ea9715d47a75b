"""The OCF resource agent contract as values: names, exit codes, environment, exit reason, meta-data.

Pure: nothing is run or read here. Sources: OCF Resource Agent API 1.1 and what Pacemaker adds to it
(`OCF_RESKEY_CRM_meta_*`, in milliseconds; `ocf-exit-reason:` lines). Meta-data is a document that is bounded
and declares no entities of its own; anything else is BadInput.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from xml.etree import ElementTree

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


class ActionOutcome(Enum):
    """What an action's end means. Soft: try again here; hard: not on this host; fatal: not as configured."""

    OK = "ok"
    NOT_RUNNING = "not running"
    SOFT = "soft error"
    HARD = "hard error"
    FATAL = "fatal error"
    TIMED_OUT = "timed out"


_ANSWERS = {
    OcfCode.SUCCESS: ActionOutcome.OK,
    OcfCode.RUNNING_PROMOTED: ActionOutcome.OK,
    OcfCode.DEGRADED: ActionOutcome.OK,
    OcfCode.DEGRADED_PROMOTED: ActionOutcome.OK,
    OcfCode.NOT_RUNNING: ActionOutcome.NOT_RUNNING,
    OcfCode.ERR_ARGS: ActionOutcome.HARD,
    OcfCode.ERR_UNIMPLEMENTED: ActionOutcome.HARD,
    OcfCode.ERR_PERM: ActionOutcome.HARD,
    OcfCode.ERR_INSTALLED: ActionOutcome.HARD,
    OcfCode.ERR_CONFIGURED: ActionOutcome.FATAL,
}


def outcome_of(code: int) -> ActionOutcome:
    """The class of an exit code; what the contract does not name is a soft error."""
    try:
        return _ANSWERS.get(OcfCode(code), ActionOutcome.SOFT)
    except ValueError:
        return ActionOutcome.SOFT


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
class AgentCall:
    """One action of one resource. `interval_s` 0 makes a monitor a probe."""

    agent: AgentName
    executable: Path
    resource: str
    verb: str
    timeout_s: float
    parameters: Mapping[str, str]
    interval_s: float = 0.0


def environment(
    call: AgentCall, ocf_root: Path, scratch: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
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


META_DATA_BYTES_MAX = 256 * 1024
"""The longest of the agents Debian ships is below 40 KiB."""

_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_UNITS_S = {"": 1.0, "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0}
_UNITS_S |= {"m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0}


@dataclass(frozen=True, slots=True)
class AdvertisedAction:
    """One action; what the agent does not say is None. Some actions are listed once a depth or role."""

    name: str
    timeout_s: float | None
    interval_s: float | None


@dataclass(frozen=True, slots=True)
class AdvertisedParameter:
    """One parameter."""

    name: str
    required: bool
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class MetaData:
    """What `meta-data` printed."""

    name: str
    version: str
    parameters: tuple[AdvertisedParameter, ...]
    actions: tuple[AdvertisedAction, ...]


def parse_duration(text: str) -> float:
    """A duration as agents write it: `20`, `20s`, `20000ms`, `1min`, `2h`; BadInput otherwise."""
    match = _DURATION.fullmatch(text)
    unit = _UNITS_S.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise BadInput("duration", text, "a number with us, ms, s, min or h, as in 20s")
    return float(match[1]) * unit


def parse_meta_data(document: bytes) -> MetaData:
    """The meta-data in `document`; BadInput says what is wrong with it, and nothing else is ever raised."""
    if len(document) > META_DATA_BYTES_MAX:
        raise BadInput("meta-data", f"{len(document)} bytes", f"at most {META_DATA_BYTES_MAX} are read")
    if b"<!ENTITY" in document:
        raise BadInput("meta-data", "<!ENTITY", "a document without entities of its own")
    try:
        root = ElementTree.fromstring(document.strip())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput("meta-data", document[:40], f"must be XML: {error}") from error
    if root.tag != "resource-agent":
        raise BadInput("meta-data", root.tag, "the root element must be resource-agent")
    return MetaData(
        name=root.get("name", ""),
        version=(root.findtext("version") or root.get("version") or "").strip(),
        parameters=tuple(_parameters(root)),
        actions=tuple(_actions(root)),
    )


def _parameters(root: ElementTree.Element) -> Iterator[AdvertisedParameter]:
    for element in root.iterfind("parameters/parameter"):
        content = element.find("content")
        yield AdvertisedParameter(
            name=element.get("name", ""),
            required=element.get("required", "0").strip().lower() in ("1", "true", "yes"),
            type="string" if content is None else content.get("type", "string"),
            default=None if content is None else content.get("default"),
        )


def _actions(root: ElementTree.Element) -> Iterator[AdvertisedAction]:
    for element in root.iterfind("actions/action"):
        name = element.get("name", "")
        yield AdvertisedAction(name, _duration(element, "timeout"), _duration(element, "interval"))


def _duration(element: ElementTree.Element, attribute: str) -> float | None:
    text = element.get(attribute)
    if text is None:
        return None
    try:
        return parse_duration(text)
    except BadInput as error:
        raise BadInput(f"meta-data.{element.get('name', '')}.{attribute}", text, error.accepted) from error
