"""Refusals in Blazar's words: its status and its sentence, and behind a colon what is wrong and would do.

The statuses are those that Blazar 18 answers, 500 for too few hosts and for an unknown resource type among
them: programs that tell its answers apart by status find the same ones here. Its texts name no value, so that
is added. A body is always `{"error_code", "error_message", "error_name"}`, of which clients show the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from homeostat.kernel.access import Caller
from homeostat.kernel.errors import BadInput, Conflict
from homeostat.leases.refusals import LeaseRefusal, RefusalReason
from homeostat.leases.requirements import MalformedRequirements

NOT_ENOUGH_HOSTS = "Not enough hosts available"
_CONFLICTS_SHOWN = 5
_SHOWN_LENGTH = 300
_LENGTH_MAX = 2000


class BlazarError(Exception):
    """An answer that is no success: one line, whatever it quotes. `headers` go with it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.message = " ".join(message.encode(errors="replace").decode().split())[:_LENGTH_MAX]
        super().__init__(self.message)
        self.status, self.headers = status, dict(headers or {})

    @property
    def body(self) -> dict[str, object]:
        return {"error_code": self.status, "error_message": self.message, "error_name": self.status}


def malformed(parameter: str, accepted: str) -> BlazarError:
    """A value that is not acceptable."""
    return BlazarError(400, f"Malformed parameter {parameter} ({accepted})")


def missing(*parameters: str) -> BlazarError:
    return BlazarError(400, f"Missing parameter {', '.join(parameters)}")


def unknown(given: str, of: str, known: tuple[str, ...]) -> BlazarError:
    """A name that Blazar would ignore."""
    names = ", ".join(known) if known else "none"
    return BlazarError(400, f"Unknown parameter {given!r} of {of}; known are: {names}")


def not_updatable(parameter: str, why: str = "") -> BlazarError:
    return BlazarError(409, f"{parameter} cannot be updated" + (f": {why}" if why else ""))


def not_found(**named: str) -> BlazarError:
    """No such thing, or another project's: the two are never told apart."""
    return BlazarError(404, f"Object with {named} not found")


def forbidden(action: str, why: str) -> BlazarError:
    """The token's role or project does not permit it. `action` as in Blazar's policy, `leases:post`."""
    return BlazarError(403, f"Policy doesn't allow blazar:{action} to be performed: {why}")


def unsupported_type(resource_type: object, plugins: tuple[str, ...]) -> BlazarError:
    """There is no plug-in for it."""
    return BlazarError(
        500,
        f"The {resource_type} resource type is not supported: no such plug-in here;"
        f" there are {', '.join(plugins)}",
    )


def bad_input(error: BadInput) -> BlazarError:
    """What a decision could not accept."""
    match error:
        case MalformedRequirements():
            given = str(error.value)
            shown = given if len(given) <= _SHOWN_LENGTH else given[: _SHOWN_LENGTH - 3] + "..."
            return BlazarError(400, f"Malformed requirements {shown}: {error.field}: {error.accepted}")
        case Conflict():
            return BlazarError(409, str(error))
        case _:
            return malformed(error.field, error.accepted)


_SENTENCES: Mapping[RefusalReason, tuple[int, str]] = {
    RefusalReason.START_PASSED: (400, "Start date must be later than current date"),
    RefusalReason.END_NOT_AFTER_START: (400, "End date must be later than start date."),
    RefusalReason.END_PASSED: (400, "End date must be later than current and start date"),
    RefusalReason.BEFORE_END_OUTSIDE: (403, "Datetime is out of lease limits"),
    RefusalReason.NO_RESERVATIONS: (400, "Missing parameter reservations"),
    RefusalReason.STARTED: (400, "Cannot modify the start date of already started leases"),
    RefusalReason.ENDED: (400, "Terminated leases can only be renamed"),
    RefusalReason.IN_TRANSITION: (500, "Invalid lease status."),
    RefusalReason.MORE_THAN_EXIST: (500, NOT_ENOUGH_HOSTS),
    RefusalReason.NOT_ENOUGH_HOSTS: (500, NOT_ENOUGH_HOSTS),
    RefusalReason.EXTENSION_CONFLICTS: (500, NOT_ENOUGH_HOSTS),
    RefusalReason.UNKNOWN_RESERVATION: (400, "Please enter valid reservation IDs."),
    RefusalReason.HOST_RESERVED: (409, "The host is reserved."),
    RefusalReason.HOST_KNOWN: (409, "Conflict while adding host"),
    RefusalReason.HOST_UNKNOWN: (404, "Host not found!"),
    RefusalReason.PROPERTY_REQUIRED: (409, "Can't add extracapabilities"),
    RefusalReason.PROPERTY_UNKNOWN: (404, "The resource property does not exist."),
}


def refused(refusal: LeaseRefusal, caller: Caller) -> BlazarError:
    """A refusal as this caller may read it: other projects' leases are counted, never named."""
    status, words = _SENTENCES[refusal.reason]
    more = _MORE.get(refusal.reason, _value)(refusal, caller)
    return BlazarError(status, f"{words.rstrip('.')}: {more}" if more else words)


def minute(at_ns: int) -> str:
    """A moment as it is given to Blazar, rounded up: what begins then does not overlap what ends there."""
    return datetime.fromtimestamp(-(-at_ns // 60_000_000_000) * 60, UTC).strftime("%Y-%m-%d %H:%M")


def _value(refusal: LeaseRefusal, _caller: Caller) -> str:
    match refusal.value:
        case None:
            return ""
        case int() if refusal.field.endswith("_date"):
            return f"{refusal.field} is {minute(refusal.value)} UTC"
        case _:
            return f"{refusal.field} is {refusal.value}"


def _too_many(refusal: LeaseRefusal, _caller: Caller) -> str:
    most = "no host has" if not refusal.free else f"only {refusal.free} could ever have"
    return f"{refusal.value} wanted, {most} what is required, whatever is booked"


def _not_free(refusal: LeaseRefusal, _caller: Caller) -> str:
    hosts = f" ({', '.join(sorted(refusal.free_hosts))})" if refusal.free_hosts else ""
    later = "" if refusal.next_start_ns is None else f"; free from {minute(refusal.next_start_ns)} UTC"
    return f"{refusal.value} wanted, {refusal.free} free in this window{hosts}{later}"


def _in_the_way(refusal: LeaseRefusal, caller: Caller) -> str:
    leases = {each.lease.id: each for each in refusal.conflicts}
    shown = [
        f"lease {each.lease.name} ({each.lease.id}) has {each.allocation.host}"
        f" from {minute(each.start_ns)} to {minute(each.end_ns)} UTC"
        for each in leases.values()
        if caller.may_read(each.lease.project)
    ][:_CONFLICTS_SHOWN]
    others = len(leases) - len(shown)
    first = min((each.start_ns for each in refusal.conflicts), default=None)
    if others:
        shown.append(f"{others} leases of others" if others > 1 else "a lease of another project")
    until = "" if first is None else f"; these hosts are free until {minute(first)} UTC"
    return "; ".join(shown) + until


def _reserved(refusal: LeaseRefusal, caller: Caller) -> str:
    return f"Can't delete host {refusal.value}; {_in_the_way(refusal, caller)}"


def _required(refusal: LeaseRefusal, caller: Caller) -> str:
    return f"{refusal.value}: required as it is; {_in_the_way(refusal, caller)}"


_MORE: Mapping[RefusalReason, Callable[[LeaseRefusal, Caller], str]] = {
    RefusalReason.MORE_THAN_EXIST: _too_many,
    RefusalReason.NOT_ENOUGH_HOSTS: _not_free,
    RefusalReason.EXTENSION_CONFLICTS: _in_the_way,
    RefusalReason.NO_RESERVATIONS: lambda _refusal, _caller: RefusalReason.NO_RESERVATIONS.value,
    RefusalReason.UNKNOWN_RESERVATION: lambda refusal, _caller: (
        f"Invalid reservation IDs are: {refusal.value}"
    ),
    RefusalReason.HOST_RESERVED: _reserved,
    RefusalReason.PROPERTY_REQUIRED: _required,
    RefusalReason.HOST_KNOWN: lambda refusal, _caller: f"{refusal.value} may be reserved already",
    RefusalReason.HOST_UNKNOWN: lambda refusal, _caller: f"no host {refusal.value!r} reports to this server",
}
