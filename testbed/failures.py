"""What goes wrong with the testbed, each in words that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.kernel.errors import GiveUp


class TestbedFailed(GiveUp):
    """The cloud did not come up, or something of it is left. The text says which part and why."""

    __test__ = False  # pytest would take it for a class of tests


class CommandFailed(TestbedFailed):
    """A command ended with an error; `tail` are the last lines that it wrote."""

    def __init__(self, what: str, code: int, tail: Sequence[str]) -> None:
        self.code, self.tail = code, tuple(tail)
        lines = "".join(f"\n    {line}" for line in tail) or "\n    (it wrote nothing)"
        super().__init__(f"{what}: ended with {code}; its last lines:{lines}")
