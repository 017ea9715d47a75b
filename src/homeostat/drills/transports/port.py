"""A host in a drill, however it is reached: its orders, the requests that carry them, the errors it
reports.

A transport adds `call`, which carries one order there; no driver stands here. The requests of a drill to a
host through its node process are declared once: for the tool, the API and the node; the server passes a
request on, the node checks it again.

Errors are the kernel's own, as the injector program means them by its exit code: NotFound, NotAllowed,
CorruptState, RetryLater, else GiveUp; they keep their kind across the way. A host that cannot be reached is
RetryLater.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from homeostat.contracts.nouns import RUN_ID
from homeostat.drills.shipped.services import address_of
from homeostat.kernel import errors
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError
from homeostat.monitors.shipped.process_watch import WatchConfig
from homeostat.monitors.supervision import MonitorCommand

Verb = Literal["probe", "plan", "inject", "prove", "undo", "verify_undone"]


class HostTransport(ABC):
    """One host: the orders of a drill, over `call`, the one thing in which the transports differ."""

    def __init__(self, host: str) -> None:
        self.host = host

    @abstractmethod
    async def call(self, order: str, given: Mapping[str, Any]) -> Any:
        """Carry one order to the host; its answer. Kernel errors as the host means them."""

    @abstractmethod
    def watch(self, config: WatchConfig, folder: Path) -> MonitorCommand:
        """The process watch there; what it saw ends up in `config.sightings_file`, its own in `folder`."""

    async def close(self) -> None:
        """Let go of connections; the keeper there goes on. Most hold none."""
        return

    async def verb(self, verb: Verb, record: dict[str, Any]) -> dict[str, Any]:
        """The record of the fault with the section of that verb added, also when it says *not able*.

        `inject` is a process of its own on the host, and goes on when we die.
        """
        # Without what an earlier run of the verb found: a crash must not look like its answer.
        before = {name: value for name, value in record.items() if name != verb}
        return {**record, verb: await self.call("verb", {"verb": verb, "record": before})}

    async def renew(self, fault: str) -> None:
        """Move the keeper's deadline on. GiveUp when the fault is over."""
        await self.call("renew", {"fault": fault})

    async def heal(self) -> list[dict[str, Any]]:
        """Have the host's keeper undo everything that is still broken; the outcomes."""
        outcomes: list[dict[str, Any]] = await self.call("heal", {})
        return outcomes

    async def status(self) -> dict[str, Any]:
        """Of its keeper: `keeper`, `open`, `halted`."""
        found: dict[str, Any] = await self.call("status", {})
        return found

    async def clock_ns(self) -> int:
        return int(await self.call("clock", {}))

    async def holds(self, profile: str, how: str, endpoint: str) -> bool:
        """Whether it holds the address: `listens`: a process of the profile does, on the endpoint's port;
        `address`: the host has the endpoint's address."""
        try:
            address_of(endpoint)
        except ValueError as error:
            raise BadInput("endpoint", endpoint, str(error)) from None
        return bool(await self.call("holds", {"profile": profile, "how": how, "endpoint": endpoint}))

    async def restart(self, profile: str, run: str) -> str:
        """Start a service that is down after `run`, by the program `restart-PROFILE` that the host's own file
        names; its name. NotAllowed when it names none, GiveUp when it fails."""
        return str(await self.call("restart", {"profile": profile, "run": run}))


def error_from_host(said: Mapping[str, Any]) -> HomeostatError:
    kind = getattr(errors, str(said.get("kind")), GiveUp)
    if kind is BadInput and said.get("field") is not None:
        return BadInput(said["field"], said["value"], said["accepted"])
    if not (isinstance(kind, type) and issubclass(kind, HomeostatError)) or issubclass(kind, BadInput):
        kind = GiveUp
    return kind(str(said["message"]))


Id = Annotated[str, Field(pattern=RUN_ID)]
"""Of a fault or a watch; on the host it becomes part of the name of a file."""
Word = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Number = Annotated[int, Field(ge=0, lt=2**62)]


class _HostRequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerbRequest(_HostRequestModel):
    """One verb of a fault; the section that it adds to the record."""

    ask: Literal["verb"] = "verb"
    verb: Verb
    record: dict[str, Any]

    @field_validator("record")
    @classmethod
    def _has_a_fault(cls, given: dict[str, Any]) -> dict[str, Any]:
        TypeAdapter(Id).validate_python(given.get("fault"))
        return given

    @property
    def fault(self) -> str:
        return str(self.record["fault"])


class RenewRequest(_HostRequestModel):
    """The undo deadline of a fault moves on."""

    ask: Literal["renew"] = "renew"
    fault: Id


class HealRequest(_HostRequestModel):
    """Everything that is still broken is undone; the outcomes."""

    ask: Literal["heal"] = "heal"


class StatusRequest(_HostRequestModel):
    """The keeper, the open faults, whether the host is halted."""

    ask: Literal["status"] = "status"


class ClockRequest(_HostRequestModel):
    """CLOCK_BOOTTIME there."""

    ask: Literal["clock"] = "clock"


class HoldsRequest(_HostRequestModel):
    """Whether the host holds an address."""

    ask: Literal["holds"] = "holds"
    profile: Word
    how: Word
    endpoint: Word


class RestartRequest(_HostRequestModel):
    """A service that is down after run `run` is started."""

    ask: Literal["restart"] = "restart"
    profile: Word
    run: Id


class WatchRequest(_HostRequestModel):
    """A watch of processes begins; the same again changes nothing."""

    ask: Literal["watch"] = "watch"
    watch: Id
    config: dict[str, Any]


class WatchLinesRequest(_HostRequestModel):
    """What a watch has said, after so many lines, which who asks has. Reading keeps it alive."""

    ask: Literal["seen"] = "seen"
    watch: Id
    after: Number


class UnwatchRequest(_HostRequestModel):
    """A watch is to say its last word."""

    ask: Literal["unwatch"] = "unwatch"
    watch: Id


HostRequest = Annotated[
    VerbRequest
    | RenewRequest
    | HealRequest
    | StatusRequest
    | ClockRequest
    | HoldsRequest
    | RestartRequest
    | WatchRequest
    | WatchLinesRequest
    | UnwatchRequest,
    Field(discriminator="ask"),
]
_ANY: TypeAdapter[HostRequest] = TypeAdapter(HostRequest)


def is_once_only(asked: HostRequest) -> bool:
    """Whether doing it twice would be something else than doing it once."""
    return isinstance(asked, RestartRequest) or (isinstance(asked, VerbRequest) and asked.verb == "inject")


def parse_request(words: object) -> HostRequest:
    """The question in these words. BadInput names the first field that is wrong."""
    try:
        return _ANY.validate_python(words)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "words"
        raise BadInput(where, first.get("input"), first["msg"]) from None
