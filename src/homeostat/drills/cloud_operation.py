"""What an operation of kind `cloud` says: one thing that a user of an OpenStack does. Frozen, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from pydantic import Field

from homeostat.drills.naming import STRICT, Name
from homeostat.drills.spans import Some

What = Literal["image", "flavor", "server", "network", "router", "volume"]
Does = Literal["create", "active", "there", "delete", "gone", "list"]
Phase = Literal["before", "during", "while_held", "after"]
WHATS: tuple[What, ...] = get_args(What)


@dataclass(frozen=True, slots=True)
class CloudOperation:
    """One step, each with a deadline of its own. Names are made up: of the run, never of the file."""

    __pydantic_config__ = STRICT

    id: Name
    kind: Literal["cloud"]
    does: Does
    """`create`, `delete` and `list` ask once. `active` looks until it is (ERROR: failed at once), `there`
    until the list has it, `gone` until the list has it no more."""
    what: What
    """`active`, `there`, `delete` and `gone`: the one that an earlier `create` made."""
    ram_mib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    """Of a flavor that is made; 512 when it is not said."""
    deadline_ms: Annotated[Some, Field(alias="deadline")] = 60_000.0
    optional: bool = False
    """An extension: reported beside, never binding, left out where the cloud has no such service."""


MAKES_SERVER: tuple[What, ...] = ("image", "flavor")
"""What this run must have made before it can make a server."""


def optional(operation: object) -> bool:
    """Whether it is an extension; an operation of another kind never is."""
    return isinstance(operation, CloudOperation) and operation.optional


@dataclass(slots=True)
class MadeSoFar:
    """What the steps so far have made, to say what is wrong with the next one.

    `rounds`: those that go round and round make their own each time, and leave alone what was there before.
    """

    there: set[What] = field(default_factory=set)
    rounds: bool = False
    own: set[What] = field(default_factory=set)
    deleted: set[What] = field(default_factory=set)
    optional: set[What] = field(default_factory=set)

    def wrong(self, step: CloudOperation, phase: Phase) -> tuple[str, str] | None:
        """The field that is wrong and what would be accepted there; None, and the step counts as done."""
        what = step.what
        if step.optional and phase == "before":
            return "optional", "false: nothing that is set up can be left out"
        if step.optional and phase == "while_held":
            return "optional", "false: an extension is asked for after the fault"
        if step.ram_mib is not None and (step.does, what) != ("create", "flavor"):
            return "ram_mib", "only where a flavor is created"
        if step.does != "list" and what in self.optional and not step.optional:
            return "optional", f"true: the {what} that it is about is optional itself"
        match step.does:
            case "create":
                return self._create(step)
            case "active" if what == "flavor":
                return "what", "another thing: a flavor has no status"
            case "active" | "there" if what not in self.there:
                return "does", f"create of {what} before it"
            case "delete" if what not in (self.own if self.rounds else self.there):
                return "does", f"create of {what} before it, in the same round" if self.rounds else (
                    f"create of {what} before it"
                )
            case "delete":
                self.there.discard(what)
                self.deleted.add(what)
            case "gone" if what not in self.deleted:
                return "does", f"delete of {what} before it"
        return None

    def _create(self, step: CloudOperation) -> tuple[str, str] | None:
        what = step.what
        if what in self.own:
            return "what", f"one {what} in a drill: its name is of the run"
        missing = [each for each in MAKES_SERVER if each not in self.there] if what == "server" else []
        if missing:
            return "what", f"create of {' and '.join(missing)} before it: a server is made of this run's own"
        self.own.add(what)
        self.there.add(what)
        if step.optional:
            self.optional.add(what)
        return None
