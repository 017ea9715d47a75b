"""The classes that are under test in a run: the real ones, unless a planted bug takes one's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from homeostat.contracts.component import ServerParts

P = TypeVar("P")
Q = ParamSpec("Q")


class ClassesUnderTest:
    """The planted bugs of a run; each takes the place of the class that it is made from."""

    def __init__(self, *planted: type) -> None:
        self._planted = planted

    def of(self, kind: type[P]) -> type[P]:
        """The class itself, or the planted bug that is made from it."""
        return next((each for each in self._planted if issubclass(each, kind)), kind)


class PartsUnderTest(ServerParts):
    """The parts of a simulated server. An instance is made for every life of a process."""

    def __init__(self, section: Callable[[str], Any], classes: ClassesUnderTest) -> None:
        super().__init__(section)
        self._classes = classes

    def make(self, kind: Callable[Q, P], /, *arguments: Q.args, **named: Q.kwargs) -> P:
        """Made from the class under test, and kept under the real one."""
        real = cast(type[P], kind)
        return self.put(real, cast(Callable[Q, P], self._classes.of(real))(*arguments, **named))
