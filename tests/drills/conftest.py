"""Fixtures of the drills' node side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_host import BrokenHost, broken_host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[BrokenHost]:
    """A host that permits every injector."""
    with broken_host(tmp_path) as made:
        yield made
