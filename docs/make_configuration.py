"""Write docs/configuration.md from the settings themselves: `make docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo

from homeostat.drills.site import Site
from homeostat.node.settings import NodeSettings
from homeostat.server.settings import server_settings

HEAD = """# Configuration

One YAML file a process. An unknown field is refused; `homeostat config check FILE` prints the merged result, or the first
field that is wrong. For the server, environment variables win over the file: `HOMEOSTAT__API__PORT=8701` is `api.port`.

`homeostat up` writes all of these files itself, below its state directory, at every start. To try another setting of the server
there, write it into `server.local.yaml` in the state directory, for instance `faults: {flap_max: 3}`, and start `up` again: it is
laid over what `up` writes, section by section, and a list replaces a list. For one start alone, an environment variable does.

This page is made from the settings by `make docs`.
"""


_FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("server.yaml", server_settings()),
    ("node.yaml", NodeSettings),
    ("site.yaml", Site),
)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, kind in _FILES:
        parts.append(f"\n## {title}\n\n| field | default | meaning |\n|---|---|---|\n")
        parts += [f"| `{name}` | {default} | {meaning} |\n" for name, default, meaning in rows(kind, "")]
    return "".join(parts)


def rows(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Every field, nested ones by their dotted path; of a list or of named ones, those of one."""
    for name, field in kind.model_fields.items():
        inner = _model_in(field)
        path = f"{prefix}{field.alias or name}"
        if inner is not None and inner is not kind:
            yield from rows(inner, f"{path}{_between(str(field.annotation))}")
        else:
            # A row is one line, or the table ends there.
            meaning = " ".join((field.description or _plain(field)).split())
            yield path, _default(field), meaning.replace("|", "\\|")


def _between(annotation: str) -> str:
    """What stands between the name of a field and the fields within."""
    if "dict[" in annotation:
        return ".NAME."
    return "[]." if "list" in annotation or "tuple" in annotation else "."


def _model_in(field: FieldInfo) -> type[BaseModel] | None:
    candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = (
        field.get_default(call_default_factory=True)
        if field.default_factory is None
        else field.default_factory()
    )  # type: ignore[call-arg]
    return f"`{_written(field, value)}`"


def _written(field: FieldInfo, value: object) -> object:
    """As a file has it: a span with its unit, not as what is reckoned with inside."""
    for each in field.metadata:
        if isinstance(each, PlainSerializer):
            return each.func(value)  # type: ignore[call-arg]
    return value


def _plain(field: FieldInfo) -> str:
    return getattr(field.annotation, "__name__", str(field.annotation))


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(page())
