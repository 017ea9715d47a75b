"""What a tool may ask of a host through its node process. Declared once: for the tool, the API and the node.

The server passes it on; the node checks it again. Nothing is done here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from homeostat.drills.transports.port import Verb
from homeostat.kernel.errors import BadInput

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
"""Of a fault or a watch; on the host it becomes part of the name of a file."""
Word = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Number = Annotated[int, Field(ge=0, lt=2**62)]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AskVerb(_Question):
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
        """Its id, which is that of the run."""
        return str(self.record["fault"])


class AskRenew(_Question):
    """The undo deadline of a fault moves on."""

    ask: Literal["renew"] = "renew"
    fault: Id


class AskHeal(_Question):
    """Everything that is still broken is undone; the outcomes."""

    ask: Literal["heal"] = "heal"


class AskStatus(_Question):
    """The keeper, the open faults, whether the host is halted."""

    ask: Literal["status"] = "status"


class AskClock(_Question):
    """CLOCK_BOOTTIME there."""

    ask: Literal["clock"] = "clock"


class AskHolds(_Question):
    """Whether the host holds an address."""

    ask: Literal["holds"] = "holds"
    profile: Word
    how: Word
    endpoint: Word


class AskRestart(_Question):
    """A service that is down after run `run` is started."""

    ask: Literal["restart"] = "restart"
    profile: Word
    run: Id


class AskWatch(_Question):
    """A watch of processes begins; the same again changes nothing."""

    ask: Literal["watch"] = "watch"
    watch: Id
    config: dict[str, Any]


class AskSeen(_Question):
    """What a watch has said, after so many lines, which who asks has. Reading keeps it alive."""

    ask: Literal["seen"] = "seen"
    watch: Id
    after: Number


class AskUnwatch(_Question):
    """A watch is to say its last word."""

    ask: Literal["unwatch"] = "unwatch"
    watch: Id


Question = Annotated[
    AskVerb
    | AskRenew
    | AskHeal
    | AskStatus
    | AskClock
    | AskHolds
    | AskRestart
    | AskWatch
    | AskSeen
    | AskUnwatch,
    Field(discriminator="ask"),
]
_ANY: TypeAdapter[Question] = TypeAdapter(Question)


def once_only(asked: Question) -> bool:
    """Whether doing it twice would be something else than doing it once."""
    return isinstance(asked, AskRestart) or (isinstance(asked, AskVerb) and asked.verb == "inject")


def question_of(words: object) -> Question:
    """The question in these words. BadInput names the first field that is wrong."""
    try:
        return _ANY.validate_python(words)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "words"
        raise BadInput(where, first.get("input"), first["msg"]) from None
