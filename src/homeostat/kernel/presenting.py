"""What may be shown of a setting or a command line.

Standard library only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
_SECRET_WORDS = ("secret", "password", "token", "parameters")
_PASSWORD = re.compile(r"((?<=//)[^/?#@:]*:(?=.*@)).*(?=@)|([?&]password=)[^&]*", re.IGNORECASE)

_WORD = r"(?<!\S)[\w-]*(?:password|passwd|secret|token|api[-_]?key)"
_OPTION = re.compile(rf"({_WORD}=|(?=-){_WORD}\s+(?!-))\S+", re.IGNORECASE)
"""`--db-password X`, `--token=X` and `API_KEY=X` of a command line; not `--token-file X`."""


def presentable(field: str, value: object) -> object:
    """What may be shown of a setting: nothing under a secret's name, no password in a URL, nothing nested."""
    path = field.lower()
    if not path.endswith("_file") and any(word in path for word in _SECRET_WORDS):
        return HIDDEN
    if isinstance(value, str):
        return _OPTION.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1\2{HIDDEN}", value))
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else value
