"""One lab for all end-to-end tests that leave it as they found it."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running_lab import Lab, running


@dataclass
class SharedLab:
    """One lab a worker, from the first test that wants it until no test here does.

    Sixteen processes that watch each other take a twelfth of a processor even when nobody asks them anything.
    """

    files: frozenset[Path] = frozenset()
    """Those whose tests want it."""
    _lab: Lab | None = None
    _until: ExitStack = field(default_factory=ExitStack)

    def running(self, factory: pytest.TempPathFactory) -> Lab:
        """The one that runs, or a new one."""
        if self._lab is None:
            directory = Path(factory.mktemp("lab")) / "state"
            self._lab = self._until.enter_context(running(directory))
        return self._lab

    def end(self) -> None:
        """Nothing of it runs on; the next test that wants one gets a new one."""
        self._lab = None
        self._until.close()


SHARED = SharedLab()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that share the lab in a row: between them it would run for nothing."""
    wants = (item for item in items if "shared_lab" in getattr(item, "fixturenames", ()))
    SHARED.files = frozenset(item.path for item in wants)
    here = [at for at, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ordered = sorted((items[at] for at in here), key=lambda item: item.path in SHARED.files)
    for at, item in zip(here, ordered, strict=True):
        items[at] = item


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """End it after the last test here that wants it; what that test's file has made is undone by then."""
    if nextitem is None or nextitem.path not in SHARED.files:
        SHARED.end()


def pytest_unconfigure() -> None:
    """Whatever ended the run."""
    SHARED.end()


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return SHARED.running(tmp_path_factory)


@pytest.fixture(scope="module")
def lab(shared_lab: Lab) -> Lab:
    """A running lab, shared; a test that stops it starts its own."""
    return shared_lab
