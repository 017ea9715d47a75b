"""What a person wants otherwise in the lab's server.yaml: `server.local.yaml` in the state directory.

Ours to read, never to write. Which settings there are is not known here: the server refuses what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from homeostat.kernel.errors import BadInput


def read_local(path: Path) -> dict[str, Any]:
    """What the file says, empty where there is none. BadInput: it is no YAML mapping."""
    import yaml  # 20 ms that only a start pays

    try:
        given = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(
            path.name, str(path), "it must be YAML and cannot be read; mend or remove it"
        ) from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadInput(path.name, str(path), "it must be a mapping, as in docs/configuration.md")
    return given


def laid_over(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """`ours` with what `theirs` says otherwise: sections field by field, anything else as a whole."""
    merged = dict(ours)
    for name, value in theirs.items():
        before = merged.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = laid_over(before, value) if both else value  # type: ignore[arg-type]
    return merged
