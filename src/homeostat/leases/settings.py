"""The settings of leases. The names that Blazar has are Blazar's, in its units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeostat.kernel.config import ListenerSettings, StrictSettings
from homeostat.leases.model import ResourceType

_Minutes = Annotated[int, Field(ge=0, le=525_600)]


class PluginSettings(StrictSettings, frozen=True):
    """What is reserved, and how its failures are found: a section of Blazar's configuration."""

    enable_notification_monitor: bool = True
    """Hear of failures at once. False and no polling: failures are never noticed."""

    notification_topics: tuple[str, ...] = ("notifications", "versioned_notifications")
    """Where monitors of other systems listen; our own hosts are followed in the journal."""

    enable_polling_monitor: bool = True
    """Look at all hosts again and again. False: a failure that nobody announced is never noticed."""

    polling_interval: int = Field(default=60, ge=1, le=86_400)
    """Seconds between two polls. Too small: load. Too large: failures are noticed late."""

    healing_interval: _Minutes = 60
    """Minutes between two looks at reservations that start soon, and how far ahead they look. 0: everything
    that is booked is healed at once, and the look takes place every minute. Too small: little time is left
    for a move. Too large: reservations leave hosts that would be back in time."""

    randomize_host_selection: bool = False
    """Try hosts in random order. False: in the order in which they were added."""

    before_end: Literal["", "default", "snapshot"] = ""
    """What is done before a lease ends unless it says so itself. Ours have only the reminder, `default`."""


class BlazarSettings(ListenerSettings, frozen=True):
    """The listener for Blazar's clients. Tokens are those of this server."""

    port: int = Field(default=1234, ge=1, le=65_535)
    """The port to listen on, by default Blazar's own."""


class LeasesSettings(StrictSettings, frozen=True, populate_by_name=True):
    """Part `leases` of server.yaml."""

    plugins: tuple[Literal["physical:host", "virtual:instance"], ...] = ("physical:host", "virtual:instance")
    """What may be reserved."""

    minutes_before_end_lease: _Minutes = 60
    """Minutes before its end that the owner of a lease is reminded; 0: not at all. Too small: too late to
    extend it. Too large: it is forgotten again."""

    event_max_retries: int = Field(default=1, ge=0, le=50)
    """How often a start or an end that failed is tried again. Too small: a hiccup leaves a lease in error.
    Too large: people learn late of what never works."""

    cleaning_time: _Minutes = 0
    """Minutes between two reservations of one host. Too small: the second finds what the first left behind.
    Too large: hosts stand idle."""

    event_deadline_s: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds that a start or an end may take. Too small: slow ends count as failed. Too large: one that
    hangs is noticed late; it delays no other."""

    planning_deadline_s: float = Field(default=30.0, gt=0, le=600)
    """Seconds that the planner may look for the best moves. Too small: more moves than needed, or missing
    hosts that a longer search would find. Too large: healing is late."""

    blazar: BlazarSettings = BlazarSettings()
    """Answer Blazar's clients."""

    physical_host: PluginSettings = Field(default=PluginSettings(), alias="physical:host")
    """Whole hosts."""

    virtual_instance: PluginSettings = Field(default=PluginSettings(), alias="virtual:instance")
    """Parts of hosts. `healing_interval` and the monitors are those of whole hosts, for the hosts are."""

    def plugin(self, resource_type: ResourceType) -> PluginSettings:
        return self.physical_host if resource_type is ResourceType.HOST else self.virtual_instance
