"""The settings of leases. The names that Blazar has are Blazar's, in its units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from homeostat.kernel.config import StrictSettings
from homeostat.leases.model import ResourceType
from homeostat.leases.monitoring import Confirmation, MonitorOptions

_PluginName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
_Minutes = Annotated[int, Field(ge=0, le=525_600)]


class MonitorSettings(StrictSettings, frozen=True):
    """How failures of hosts are found by one monitoring plug-in."""

    enable_notification_monitor: bool = True
    """Hear of failures at once. False and no polling: failures are never noticed."""

    notification_topics: tuple[str, ...] = ("notifications", "versioned_notifications")
    """Where monitors of other systems listen; our own hosts are followed in the journal."""

    enable_polling_monitor: bool = True
    """Look at all hosts again and again. False: a failure that nobody announced is never noticed."""

    polling_interval: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Seconds between two polls; without it the plug-in's own. Too small: load. Too large: failures are
    noticed late."""

    healing_interval: _Minutes | None = None
    """Minutes between two looks at reservations that start soon, and how far ahead they look; without it the
    plug-in's own. The farthest of all monitors counts, and 0, for everything that is booked, above all."""

    confirm_polls: int = Field(default=1, ge=1, le=100)
    """So many of the last `confirm_window` polls must say that a host failed, or that it is back, the last
    one among them. Too small: a hiccup moves reservations. Too large: failures are noticed late."""

    confirm_window: int = Field(default=1, ge=1, le=100)
    """Polls that are looked at together; at least `confirm_polls`. A host that is absent from the list needs
    two of two at the least. Too large: old looks count."""

    monitor_dry_run: bool = False
    """Write down what this monitor concludes, and do nothing. True and no other monitor: failures change
    nothing."""

    @model_validator(mode="after")
    def _window_is_wide_enough(self) -> Self:
        if self.confirm_window < self.confirm_polls:
            raise ValueError(f"confirm_window must be at least confirm_polls, which is {self.confirm_polls}")
        return self

    @property
    def confirmation(self) -> Confirmation:
        return Confirmation(self.confirm_polls, self.confirm_window)

    def monitor_options(self, name: str, own: Mapping[str, Any]) -> MonitorOptions:
        """What a plug-in of that name is made from."""
        return MonitorOptions(
            name,
            own,
            self.notification_topics,
            None if self.polling_interval is None else float(self.polling_interval),
            None if self.healing_interval is None else self.healing_interval * 60.0,
        )

    def warnings(self, section: str) -> Iterator[str]:
        """What is likely not meant."""
        if not self.enable_notification_monitor and not self.enable_polling_monitor:
            yield f"{section}: push and polling are off: this monitor never notices a failure"
        elif not self.enable_polling_monitor:
            yield (
                f"{section}: push is on and polling is off: a failure that nobody announces is never "
                "noticed; set enable_polling_monitor"
            )


class ExternalMonitorSettings(MonitorSettings, frozen=True):
    """A monitoring plug-in of another package."""

    options: dict[str, Any] = Field(default={})
    """What the plug-in itself understands; see its own documentation."""


class PluginSettings(MonitorSettings, frozen=True):
    """What is reserved, and how its failures are found: a section of Blazar's configuration."""

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

    host: str = "127.0.0.1"
    """The address on which Blazar's clients are answered."""

    port: int = Field(default=1234, ge=1, le=65_535)
    """The port of that, Blazar's own."""

    enabled: bool = False
    """Answer Blazar's clients. Tokens are those of this server."""

    physical_host: PluginSettings = Field(default=PluginSettings(), alias="physical:host")
    """Whole hosts."""

    virtual_instance: PluginSettings = Field(default=PluginSettings(), alias="virtual:instance")
    """Parts of hosts. `healing_interval` and the monitors are those of whole hosts, for the hosts are."""

    monitors: dict[_PluginName, ExternalMonitorSettings] = Field(default={})
    """Monitoring plug-ins of other packages, by the names of their entry points; see
    docs/leases-monitoring.md."""

    def warnings(self) -> list[str]:
        """What is likely not meant, one line each."""
        sections = {
            "physical:host": self.physical_host,
            **{f"monitors.{k}": v for k, v in self.monitors.items()},
        }
        found = [each for name, one in sections.items() for each in one.warnings(f"leases.{name}")]
        ignored = sorted(self.virtual_instance.model_fields_set & MonitorSettings.model_fields.keys())
        if ignored:
            found.append(
                f"leases.virtual:instance: {', '.join(ignored)} has no effect: instances are on hosts, and "
                "the monitors of hosts are under physical:host"
            )
        return found

    def plugin(self, resource_type: ResourceType) -> PluginSettings:
        return self.physical_host if resource_type is ResourceType.HOST else self.virtual_instance
