"""`homeostat config check FILE`: the settings in a file, merged with the defaults, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from homeostat.kernel.config import HIDDEN, load, redact
from homeostat.node.settings import NodeSettings
from homeostat.server.settings import server_settings


def check_file(path: Path) -> tuple[str, dict[str, Any]]:
    """`server` or `node`, and the merged settings; BadInput names the first field that is wrong.

    A file with a `host` is a node's.
    """
    if _is_node(path):
        return "node", _without_secrets(load(NodeSettings, path).model_dump(mode="json"))
    return "server", _without_secrets(load(server_settings(), path).model_dump(mode="json"))


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
