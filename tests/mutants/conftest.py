"""What a run with a planted bug goes through is not counted as tested; uncounted it takes two thirds."""

from collections.abc import Iterator

import pytest
from coverage import Coverage


@pytest.fixture(autouse=True)
def uncounted() -> Iterator[None]:
    """The measurement of this process stands still for one test."""
    counting = Coverage.current()
    if counting is None:
        yield
        return
    counting.stop()
    yield
    counting.start()
