"""From the text of a file to a Drill or a Suite, or to its problems by line. I/O: only `load`, `text_of`.

A problem names file, line, field and value, and says what would be accepted. Nothing is half read: with one
problem there is no drill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from homeostat.drills.language.marked import Marked, NotYaml, read
from homeostat.drills.language.rules import drill_rules, suite_rules
from homeostat.drills.model import COMMAND, Drill, Suite
from homeostat.drills.naming import NAME
from homeostat.kernel.errors import BadInput

_SHOWN_MAX = 60
_PATTERNS = {
    NAME: "a name of small letters, digits and hyphens, beginning with a letter, at most 63 long",
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
class Read:
    """What was in a file: one drill or suite, or problems."""

    found: Drill | Suite | None
    problems: tuple[Problem, ...]


def parse(text: str, file: str) -> Read:
    """The drill or suite in this text, or everything that is wrong with it, by line."""
    try:
        root = read(text)
    except NotYaml as error:
        return Read(None, (Problem(file, error.line, "YAML", "", str(error)),))
    kind = _kind_of(root.value)
    if kind is None:
        accepted = "a mapping with `drill: NAME` or `suite: NAME`"
        return Read(None, (Problem(file, root.line, "document", _shown(root.value), accepted),))
    try:
        found: Drill | Suite = _adapters()[kind].validate_python(root.value)
    except ValidationError as error:
        told = [_problem(each, kind, root, file) for each in error.errors(include_url=False) if _says(each)]
        return Read(None, tuple(sorted(told, key=lambda problem: problem.line)))
    broken = drill_rules(found) if isinstance(found, Drill) else suite_rules(found)
    problems = tuple(
        Problem(
            file,
            root.line_at(each.path),
            _dotted(each.path),
            _shown(_value_at(root, each.path)),
            each.accepted,
        )
        for each in broken
    )
    return Read(None, tuple(sorted(problems, key=lambda each: each.line))) if problems else Read(found, ())


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


def drill_record(drill: Drill) -> dict[str, Any]:
    """A drill with the file's own words, for a plan and for machines."""
    record: dict[str, Any] = _adapters()[Drill].dump_python(drill, by_alias=True, mode="json")
    return record


def drill_of(record: object) -> Drill:
    """The drill in what `drill_record` wrote; BadInput names the field."""
    try:
        found: Drill = _adapters()[Drill].validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(_dotted(first["loc"]), None, str(first["msg"])) from None
    broken = drill_rules(found)
    if broken:
        raise BadInput(_dotted(broken[0].path), None, broken[0].accepted)
    return found


def suite_record(suite: Suite) -> dict[str, Any]:
    """A suite with the file's own words."""
    record: dict[str, Any] = _adapters()[Suite].dump_python(suite, by_alias=True, mode="json")
    return record


@cache
def _adapters() -> dict[type, TypeAdapter[Any]]:
    return {Drill: TypeAdapter(Drill), Suite: TypeAdapter(Suite)}


def _kind_of(value: object) -> type[Drill] | type[Suite] | None:
    if not isinstance(value, dict) or ("drill" in value) == ("suite" in value):
        return None
    return Drill if "drill" in value else Suite


def _says(error: Mapping[str, Any]) -> bool:
    """Not the length of a list whose items are wrong themselves."""
    return not (error["type"] == "too_short" and error.get("input"))


def _problem(error: Mapping[str, Any], kind: type, root: Marked, file: str) -> Problem:
    path = _real(error["loc"], root)
    missing = error["type"] in ("missing", "union_tag_not_found")
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path = (*path, str(error["ctx"]["discriminator"]).strip("'()"))
    field = _dotted(path)
    value = "" if missing else _shown(_tag_or_value(error))
    return Problem(file, root.line_at(path), field, value, _accepted(error, kind))


def _tag_or_value(error: Mapping[str, Any]) -> object:
    return error["ctx"]["tag"] if error["type"] == "union_tag_invalid" else error.get("input")


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
    """Of a union, the ones with this tag."""
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


def _real(loc: Sequence[str | int], root: Marked) -> tuple[str | int, ...]:
    """Without the tags of unions, which the library puts between; the last part stays."""
    here, path = root, []
    for at, part in enumerate(loc):
        if part in here.parts:
            here = here.parts[part]
        elif at < len(loc) - 1:
            continue
        path.append(part)
    return tuple(path)


def _value_at(root: Marked, path: Sequence[str | int]) -> object:
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
