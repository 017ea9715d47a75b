"""The sentences of events about resources, guests and acts."""

from __future__ import annotations

from homeostat.contracts.events import resources


def sentence(event: object, about: str) -> str:
    match event:
        case resources.ResourceDown():
            return f"{event.resource} on {event.host} is {event.state}: {event.reason}"
        case resources.ResourceUp():
            return f"{event.resource} on {event.host} is up: {event.reason}"
        case resources.ActionIntended():
            limit = f"deadline {event.deadline_s:g} s"
            if event.uncommitted:
                limit += ", intent not on its disk"
            host = event.owner_of_act.removeprefix("node/")
            doing = _DOING.get(event.verb, f"{event.verb} of {{name}} by {{host}}")
            return f"{doing.format(name=_name(about), host=host)} ({limit}): {event.reason}"
        case resources.ActionFinished():
            ended = _ENDED.get(event.outcome, f"ended {event.outcome} after")
            return f"The act on {_name(about)} {ended} {event.took_ms:.0f} ms: {event.reason}"
        case resources.GuestAssigned():
            return f"{event.resource} assigned to {event.host} (generation {event.generation})"
        case resources.GuestMoved():
            return (
                f"{event.resource} reassigned from {event.from_host} to {event.host} "
                f"(generation {event.generation})"
            )
        case resources.GuestFound():
            return f"{event.host} runs {event.resource} under a later generation: {event.generation}"
        case resources.GuestStranded():
            return (
                f"No host can start {event.resource} (was on {event.host}): {event.reason} ({event.detail})"
            )
        case _:
            return ""


_DOING = {
    "start": "Starting {name} on {host}",
    "restart": "Restarting {name} on {host}",
    "stop": "Stopping {name} on {host}",
    "fence": "Fencing {name}",
    "mark_down": "Marking {name} down at the cloud",
    "mark_up": "Marking {name} up at the cloud",
    "set_error": "Marking the guests of {name} in error at the cloud",
    "clear_error": "Removing the error marks of the guests of {name} at the cloud",
}
_ENDED = {"ok": "succeeded in", "failed": "failed after", "unknown": "has an unknown outcome after"}


def _name(about: str) -> str:
    """`web-n1` of `resource/web-n1`."""
    return about.partition("/")[2] or about
