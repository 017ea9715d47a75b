"""Fixtures of every room. What they are made of is in real_parts.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from real_parts import NatsServer


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running NATS server with the users `server`, `n1` and `n2` (password: `<user>-secret`)."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()
