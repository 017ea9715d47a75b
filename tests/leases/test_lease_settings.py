"""The section `leases` of server.yaml takes Blazar's option names."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeostat.kernel.config import validate
from homeostat.kernel.errors import BadInput
from homeostat.leases.model import ResourceType
from homeostat.server.settings import server_settings

BASE = {"state_dir": Path("/nowhere"), "database_url": "sqlite:////nowhere/x.db"}


@pytest.mark.seed("003 admins can enable or disable monitoring by setting configuration options")
def test_the_names_of_blazar_are_accepted() -> None:
    host = {
        "enable_notification_monitor": False,
        "notification_topics": ["versioned_notifications"],
        "enable_polling_monitor": True,
        "polling_interval": 5,
        "healing_interval": 0,
        "randomize_host_selection": True,
        "before_end": "default",
    }
    given = {
        "plugins": ["physical:host"],
        "minutes_before_end_lease": 10,
        "event_max_retries": 3,
        "cleaning_time": 5,
        "physical:host": host,
    }
    leases = validate(server_settings(), {**BASE, "leases": given}).section("leases")
    found = leases.plugin(ResourceType.HOST).model_dump(mode="json")
    assert host.items() <= found.items() and leases.plugins == ("physical:host",)
    assert (leases.blazar.port, leases.blazar.enabled) == (1234, False)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"physical:host": {"poll_interval": 5}}, "poll_interval"),
        ({"plugins": ["virtual:floatingip"]}, "leases.plugins"),
        ({"event_max_retries": 51}, "event_max_retries"),
        ({"physical:host": {"healing_interval": -1}}, "healing_interval"),
        ({"physical:host": {"confirm_polls": 3, "confirm_window": 2}}, "confirm_window must be at least"),
        ({"monitors": {"No Name": {}}}, "leases.monitors"),
        ({"monitors": {"m": {"poll_interval": 5}}}, "poll_interval"),
    ],
)
def test_what_is_unknown_is_refused(given: dict[str, object], where: str) -> None:
    with pytest.raises(BadInput, match=where):
        validate(server_settings(), {**BASE, "leases": given})


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({}, []),
        ({"physical:host": {"enable_notification_monitor": False}}, []),
        (
            {"physical:host": {"enable_polling_monitor": False}},
            ["physical:host: push is on and polling is off"],
        ),
        (
            {"physical:host": {"enable_polling_monitor": False, "enable_notification_monitor": False}},
            ["physical:host: push and polling are off"],
        ),
        (
            {"monitors": {"m": {"enable_polling_monitor": False}}},
            ["monitors.m: push is on and polling is off"],
        ),
        ({"virtual:instance": {"polling_interval": 5}}, ["virtual:instance: polling_interval has no effect"]),
        ({"virtual:instance": {"before_end": "default"}}, []),
    ],
)
@pytest.mark.seed("order leases: push on and polling off is warned of")
def test_what_is_likely_not_meant_is_warned_of(given: dict[str, object], warned: list[str]) -> None:
    found = validate(server_settings(), {**BASE, "leases": given}).section("leases").warnings()
    assert len(found) == len(warned)
    assert all(line.startswith(f"leases.{start}") for line, start in zip(found, warned, strict=True)), found
