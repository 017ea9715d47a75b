"""YAML with the line of everything in it. No drill is known here.

Less than YAML on purpose: keys are plain words (`on` is not true), a key stands once, dates stay text, and
there are no anchors, so that a small file is a small thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

SIZE_MAX = 256 * 1024
DEPTH_MAX = 20
_PREFIX = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Marked:
    """A value, the line (from 1) where it stands, and its parts."""

    value: Any
    line: int
    parts: dict[str | int, Marked] = field(default_factory=dict)

    def line_at(self, path: Sequence[str | int]) -> int:
        """The line of what is there; of the nearest thing around it when it is not."""
        here = self
        for part in path:
            here = here.parts.get(part, here)
        return here.line


class NotYaml(Exception):
    """`line` and what is wrong there."""

    def __init__(self, line: int, wrong: str) -> None:
        self.line = line
        super().__init__(wrong)


class _Plain(yaml.SafeLoader):
    """Refuses an alias where it stands, before it is followed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise NotYaml(mark.line + 1, "an alias (*) is not read; write it out")
        return super().compose_node(parent, index)


def read(text: str) -> Marked:
    """The document in this text; NotYaml with the line when it is none."""
    if len(text) > SIZE_MAX:
        raise NotYaml(1, f"longer than {SIZE_MAX // 1024} KiB")
    try:
        loader = _Plain(text)
        node = loader.get_single_node()
        return Marked(None, 1) if node is None else _marked(loader, node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(mark.line + 1 if mark else 1, str(error.problem or error.context)) from None
    except yaml.YAMLError as error:
        raise NotYaml(1, str(error).splitlines()[0]) from None
    except RecursionError:
        raise NotYaml(1, "nested too deeply") from None


def _marked(loader: yaml.SafeLoader, node: yaml.Node, depth: int) -> Marked:
    line = node.start_mark.line + 1
    if depth > DEPTH_MAX:
        raise NotYaml(line, "nested too deeply")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, depth)
    if isinstance(node, yaml.SequenceNode):
        items: dict[str | int, Marked] = {
            at: _marked(loader, each, depth + 1) for at, each in enumerate(node.value)
        }
        return Marked([item.value for item in items.values()], line, items)
    kind = node.tag.removeprefix(_PREFIX)
    if kind not in ("int", "float", "bool", "null"):
        return Marked(node.value, line)
    try:
        return Marked(loader.construct_object(node), line)
    except ValueError:
        return Marked(node.value, line)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, depth: int) -> Marked:
    parts: dict[str | int, Marked] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise NotYaml(at, "a key is one word")
        if key.value in parts:
            raise NotYaml(at, f"{key.value} stands here twice")
        parts[key.value] = _marked(loader, value, depth + 1)
        parts[key.value].line = at if not isinstance(value, yaml.ScalarNode) else value.start_mark.line + 1
    return Marked({name: part.value for name, part in parts.items()}, node.start_mark.line + 1, parts)
