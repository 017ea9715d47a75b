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
    assert found == host and leases.plugins == ("physical:host",)
    assert (leases.port, leases.enabled) == (1234, False)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"physical:host": {"poll_interval": 5}}, "poll_interval"),
        ({"plugins": ["virtual:floatingip"]}, "leases.plugins"),
        ({"event_max_retries": 51}, "event_max_retries"),
        ({"physical:host": {"healing_interval": -1}}, "healing_interval"),
    ],
)
def test_what_is_unknown_is_refused(given: dict[str, object], where: str) -> None:
    with pytest.raises(BadInput, match=where):
        validate(server_settings(), {**BASE, "leases": given})
