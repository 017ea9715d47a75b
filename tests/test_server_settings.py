"""What follows from a server's settings."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from homeostat.server.settings import FOREIGN_CONNECTIONS_MAX, ServerSettings, server_settings


def settings(nats_url: str) -> ServerSettings:
    nats = {"url": nats_url, "user": "server", "password_file": Path("/x")}
    return ServerSettings.model_validate(
        {"state_dir": "/x", "database_url": "sqlite:////x/y.db", "nats": nats, "api": {"port": 8701}}
    )


@pytest.mark.parametrize(
    ("url", "listener"),
    [
        ("nats://127.0.0.1:4223", ("127.0.0.1", 4223)),
        ("tls://[::1]", ("::1", 4222)),
        ("nats://bus.example", None),
    ],
)
def test_webhooks_may_reach_neither_our_api_nor_nats(url: str, listener: tuple[str, int] | None) -> None:
    expected = [("127.0.0.1", 8701), *([listener] if listener else [])]
    assert settings(url).listeners() == expected


def test_webhooks_may_not_reach_a_foreign_listener_which_has_connections_of_its_own() -> None:
    given = {"state_dir": "/x", "database_url": "sqlite:////x/y.db"}
    closed = server_settings().model_validate(given)
    wanted = {"leases": {"blazar": {"enabled": True, "port": 1300}}}
    opened = server_settings().model_validate(given | wanted)
    assert closed.foreign_listeners() == []
    assert ("127.0.0.1", 1300) in opened.listeners()
    assert ("127.0.0.1", 1234) not in closed.listeners()
    assert opened.foreign_limits().in_all == FOREIGN_CONNECTIONS_MAX
    assert opened.foreign_limits().strangers < opened.connection_limits().strangers


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        ServerSettings.model_validate({"surprise": 1})
