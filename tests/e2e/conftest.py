"""One lab for all end-to-end tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_lab import Lab, running


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running lab, shared; a test that stops it starts its own."""
    with running(Path(tmp_path_factory.mktemp("lab")) / "state") as started:
        yield started
