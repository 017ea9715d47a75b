"""Parses a drill or suite file into a model, or into its problems by line. I/O: only `load` and `text_of`.

A problem names file, line, field and value, and says what would be accepted. Nothing is half read: with one
problem there is no drill.

The YAML keeps the line of every value, and is less than YAML on purpose: keys are plain words (`on` is not
true), a key stands once, dates stay text, and there are no anchors, so that a small file is a small thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from homeostat.contracts.nouns import DRILL_NAME
from homeostat.drills.language.rules import drill_rules, suite_rules
from homeostat.drills.model import COMMAND, Drill, Suite
from homeostat.kernel.errors import BadInput

SIZE_MAX = 256 * 1024
DEPTH_MAX = 20
_PREFIX = "tag:yaml.org,2002:"


@dataclass(slots=True)
class YamlNode:
    """A value, the line (from 1) where it stands, and its parts."""

    value: Any
    line: int
    parts: dict[str | int, YamlNode] = field(default_factory=dict)

    def line_at(self, path: Sequence[str | int]) -> int:
        """The line of what is there; of the nearest thing around it when it is not."""
        here = self
        for part in path:
            here = here.parts.get(part, here)
        return here.line


class YamlProblem(Exception):
    """`line` and what is wrong there."""

    def __init__(self, line: int, wrong: str) -> None:
        self.line = line
        super().__init__(wrong)


class _PlainLoader(yaml.SafeLoader):
    """Refuses an alias where it stands, before it is followed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise YamlProblem(mark.line + 1, "an alias (*) is not read; write it out")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> YamlNode:
    """The document in this text; NotYaml with the line when it is none."""
    if len(text) > SIZE_MAX:
        raise YamlProblem(1, f"longer than {SIZE_MAX // 1024} KiB")
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        return YamlNode(None, 1) if node is None else _node_of(loader, node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(mark.line + 1 if mark else 1, str(error.problem or error.context)) from None
    except yaml.YAMLError as error:
        raise YamlProblem(1, str(error).splitlines()[0]) from None
    except RecursionError:
        raise YamlProblem(1, "nested too deeply") from None


def _node_of(loader: yaml.SafeLoader, node: yaml.Node, depth: int) -> YamlNode:
    line = node.start_mark.line + 1
    if depth > DEPTH_MAX:
        raise YamlProblem(line, "nested too deeply")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, depth)
    if isinstance(node, yaml.SequenceNode):
        items: dict[str | int, YamlNode] = {
            at: _node_of(loader, each, depth + 1) for at, each in enumerate(node.value)
        }
        return YamlNode([item.value for item in items.values()], line, items)
    kind = node.tag.removeprefix(_PREFIX)
    if kind not in ("int", "float", "bool", "null"):
        return YamlNode(node.value, line)
    with suppress(ValueError):
        return YamlNode(loader.construct_object(node), line)
    return YamlNode(node.value, line)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, depth: int) -> YamlNode:
    parts: dict[str | int, YamlNode] = {}
    for key, value in node.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlProblem(at, "a key is one word")
        if key.value in parts:
            raise YamlProblem(at, f"{key.value} is listed twice here")
        parts[key.value] = _node_of(loader, value, depth + 1)
        parts[key.value].line = at if not isinstance(value, yaml.ScalarNode) else value.start_mark.line + 1
    return YamlNode({name: part.value for name, part in parts.items()}, node.start_mark.line + 1, parts)


_SHOWN_MAX = 60
_PATTERNS = {
    DRILL_NAME: "a name of small letters, digits and hyphens, beginning with a letter, at most 63 long",
    COMMAND: "words of the client that end in list: server list",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file."""

    file: str
    line: int
    field: str
    value: str
    accepted: str

    def __str__(self) -> str:
        said = f" {self.value} is not accepted;" if self.value else ""
        return f"{self.file}:{self.line}: {self.field}:{said} {self.accepted}"


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What was in a file: one drill or suite, or problems."""

    found: Drill | Suite | None
    problems: tuple[Problem, ...]


def parse(text: str, file: str) -> ParsedFile:
    """The drill or suite in this text, or everything that is wrong with it, by line."""
    try:
        root = parse_yaml(text)
    except YamlProblem as error:
        return ParsedFile(None, (Problem(file, error.line, "YAML", "", str(error)),))
    kind = _kind_of(root.value)
    if kind is None:
        accepted = "a mapping with `drill: NAME` or `suite: NAME`"
        return ParsedFile(None, (Problem(file, root.line, "document", _shown(root.value), accepted),))
    try:
        found: Drill | Suite = _adapters()[kind].validate_python(root.value)
    except ValidationError as error:
        told = [
            _problem(each, kind, root, file) for each in error.errors(include_url=False) if _is_shown(each)
        ]
        return ParsedFile(None, tuple(sorted(told, key=lambda problem: problem.line)))
    broken = drill_rules(found) if isinstance(found, Drill) else suite_rules(found)
    problems = []
    for each in broken:
        value = _shown(_value_at(root, each.path))
        problems.append(Problem(file, root.line_at(each.path), _dotted(each.path), value, each.accepted))
    return ParsedFile(None if problems else found, tuple(sorted(problems, key=lambda each: each.line)))


def load(path: Path) -> Drill | Suite:
    """The drill or suite in a file; BadInput with its first problem."""
    read_ = parse(text_of(path), str(path))
    if read_.found is None:
        first = read_.problems[0]
        raise BadInput(f"{first.file}:{first.line}: {first.field}", first.value, first.accepted)
    return read_.found


def text_of(path: Path) -> str:
    """A file's text; BadInput says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput("FILE", str(path), f"it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput("FILE", str(path), "it must be text in UTF-8") from None


def record_of(found: Drill | Suite) -> dict[str, Any]:
    """A drill or suite with the file's own words, for a plan and for machines."""
    record: dict[str, Any] = _adapters()[type(found)].dump_python(found, by_alias=True, mode="json")
    return record


def drill_of(record: object) -> Drill:
    """The drill in what `record_of` wrote; BadInput names the field."""
    try:
        found: Drill = _adapters()[Drill].validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(_dotted(first["loc"]), None, str(first["msg"])) from None
    broken = drill_rules(found)
    if broken:
        raise BadInput(_dotted(broken[0].path), None, broken[0].accepted)
    return found


@cache
def _adapters() -> dict[type, TypeAdapter[Any]]:
    return {Drill: TypeAdapter(Drill), Suite: TypeAdapter(Suite)}


def _kind_of(value: object) -> type[Drill] | type[Suite] | None:
    if not isinstance(value, dict) or ("drill" in value) == ("suite" in value):
        return None
    return Drill if "drill" in value else Suite


def _is_shown(error: Mapping[str, Any]) -> bool:
    """Not the length of a list whose items are wrong themselves."""
    return not (error["type"] == "too_short" and error.get("input"))


def _problem(error: Mapping[str, Any], kind: type, root: YamlNode, file: str) -> Problem:
    path = _real(error["loc"], root)
    missing = error["type"] in ("missing", "union_tag_not_found")
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path = (*path, str(error["ctx"]["discriminator"]).strip("'()"))
    field = _dotted(path)
    given = error["ctx"]["tag"] if error["type"] == "union_tag_invalid" else error.get("input")
    value = "" if missing else _shown(given)
    return Problem(file, root.line_at(path), field, value, _accepted(error, kind))


def _accepted(error: Mapping[str, Any], kind: type) -> str:
    said = error["type"]
    context = error.get("ctx", {})
    match said:
        case "missing":
            return "it must be there"
        case "union_tag_not_found":
            return "it must be there, and decides what else may stand here"
        case "union_tag_invalid":
            return f"one of {context['expected_tags']}".replace("'", "")
        case "unexpected_keyword_argument":
            return f"there is no such field; known here: {', '.join(_known(error['loc'][:-1], kind))}"
        case "string_pattern_mismatch":
            return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"one of {context['expected']}".replace("'", "").replace(" or ", ", ")
        case "model_attributes_type" | "dataclass_type":
            return "a mapping"
        case "tuple_type":
            return "a list"
        case "too_short":
            return f"at least {context['min_length']}"
        case _:
            return str(error["msg"]).removeprefix("Input should be ")


def _known(loc: Sequence[str | int], kind: type) -> list[str]:
    """The words of the file that may stand there."""
    here: list[type] = [kind]
    for part in loc:
        if isinstance(part, int):
            continue
        here = [each for owner in here for each in _types_under(owner, part)] or _tagged(here, part)
    return sorted({word for owner in here for word in _words(owner)})


def _types_under(owner: type, word: str) -> list[type]:
    hints = get_type_hints(owner, include_extras=True)
    return [
        found for name, hint in hints.items() if _word(name, hint) == word for found in _dataclasses(hint)
    ]


def _tagged(candidates: Iterable[type], tag: str) -> list[type]:
    return [each for each in candidates if tag in str(get_type_hints(each, include_extras=True))]


def _dataclasses(hint: Any) -> list[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        return [hint]
    return [found for each in get_args(hint) for found in _dataclasses(each)]


def _words(owner: type) -> list[str]:
    hints = get_type_hints(owner, include_extras=True)
    return [_word(each.name, hints[each.name]) for each in fields(owner)]


def _word(name: str, hint: Any) -> str:
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, FieldInfo) and each.alias is not None:
            return each.alias
    return name


def _real(loc: Sequence[str | int], root: YamlNode) -> tuple[str | int, ...]:
    """Without the tags of unions, which the library puts between; the last part stays."""
    here, path = root, []
    for at, part in enumerate(loc):
        if part in here.parts:
            here = here.parts[part]
        elif at < len(loc) - 1:
            continue
        path.append(part)
    return tuple(path)


def _value_at(root: YamlNode, path: Sequence[str | int]) -> object:
    here = root
    for part in path:
        if part not in here.parts:
            return None
        here = here.parts[part]
    return here.value


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path)) or "document"


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case dict():
            return "a mapping"
        case list():
            return "a list" if value else "an empty list"
        case _:
            text = repr(value)
            return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."
