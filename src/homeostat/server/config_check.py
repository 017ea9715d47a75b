"""`homeostat config check FILE`: the settings in a file, merged with the defaults, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from homeostat.kernel.config import HIDDEN, find_warnings, load, redact
from homeostat.node.settings import NodeSettings
from homeostat.server.settings import server_settings


class CheckedSettings(NamedTuple):
    """`server` or `node`, the merged settings, and what is likely not meant."""

    kind: str
    merged: dict[str, Any]
    warnings: list[str]


def check_file(path: Path) -> CheckedSettings:
    """BadInput names the first field that is wrong. A file with a `host` is a node's."""
    is_node = _is_node(path)
    settings = load(NodeSettings if is_node else server_settings(), path)
    merged = _without_secrets(settings.model_dump(mode="json"))
    return CheckedSettings("node" if is_node else "server", merged, find_warnings(settings))


def _without_secrets(section: dict[str, Any]) -> dict[str, Any]:
    return {name: _shown(name, value) for name, value in section.items()}


def _shown(name: str, value: Any) -> Any:
    match value:
        case dict() if name == "parameters":  # of an agent: whatever a site wrote there
            return dict.fromkeys(value, HIDDEN)
        case dict():
            return _without_secrets(value)
        case list():
            return [_shown(name, each) for each in value]
        case _:
            return redact(name, value)


def _is_node(path: Path) -> bool:
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # `load` says in one line what is wrong with it
    return isinstance(given, dict) and "host" in given
