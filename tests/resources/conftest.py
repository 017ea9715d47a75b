from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from played_node import PlayedNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., PlayedNode]]:
    """Makes nodes that leave no process behind."""
    made: list[PlayedNode] = []

    def make(*resources: dict[str, Any], **runner: Any) -> PlayedNode:
        directory = tmp_path / f"node{len(made)}"
        directory.mkdir()
        made.append(PlayedNode(directory, {"resources": list(resources), **runner}))
        return made[-1]

    yield make
    for each in made:
        each.close()
