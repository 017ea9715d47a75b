"""Redacts secrets in settings and command lines before they are shown.

A command line is redacted word by word, by what takes a secret: too much rather than too little, but a
number after `-p` or `-P` is a port. Standard library only, python3.9: it is shipped to hosts.
"""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
_SECRET_WORDS = ("secret", "password", "token", "parameters")
_PASSWORD = re.compile(r"((?<=//)[^/?#@:]*:(?=.*@)).*(?=@)|([?&]password=)[^&]*", re.IGNORECASE)

_BEGIN = r"(?<![^\s;,'\"])"
_NAME = (
    r"[\w.-]*(?:pass|password|passwd|passphrase|masterauth|secret|token|cookie"
    r"|(?:api[-_]?|secret[\w-]*|encryption[-_]?)key)"
)
_WORD = _BEGIN + _NAME
_QUERY = re.compile(rf"((?<=[?&]){_NAME}=)[^\s&]+", re.IGNORECASE)
"""`?password=X&` of a URL: what follows is the next word's."""

_OPTION = re.compile(rf"({_WORD}=|(?=-){_WORD}\s+(?!-))\S+", re.IGNORECASE)
"""`--db-password X`, `--token=X` and `API_KEY=X` of a command line, `a=b;key_password=X` within a word of it;
not `--token-file X`."""

_LOGIN_OPTION = re.compile(rf"({_BEGIN}-[\w.-]*[-_]auth[\s=]+[^\s:=/-][^\s:]*:)\S+", re.IGNORECASE)
"""`--stats-auth user:X` and `--wsrep_sst_auth=user:X`; not `--auth-strategy keystone`."""

_HEADER = re.compile(
    r"(?:(?<![\w-])|(?<=-H))((?:proxy-)?authorization\s*:\s*(?:(?:basic|bearer|digest|negotiate|token|apikey)\s+)?"
    r"|(?:set-)?cookie\s*:\s*|[\w-]*(?:token|secret|password|api-?key)[\"']?\s*:(?!//)\s*)(?:\S+[,;]\s+)*\S+",
    re.IGNORECASE,
)
"""`-H Authorization: Bearer X`, `X-Auth-Token: X`: the blanks in a word look like those between words."""

_LOGIN = re.compile(
    r"((?<![^\s=,;'\"])[\w.+-]+:)[^\s@/]+(?=@\S)|((?<!\S)(?:-u|--user)[\s=]*[^\s:=/-][^\s:]*:)(?!\d+(?!\S))\S+"
)
"""`user:password@host` without a scheme, and `-u user:password` as of curl; `-u 1000:1000` is no login."""

_NUMBER = r"(?:\d+(?:[.:,/-]\d+)*(?:/(?:tcp|udp))?(?!\S))"
_SHORT = re.compile(rf"((?<!\S)-[pP]\s+)(?!{_NUMBER}|-)\S+")
_GLUED = re.compile(rf"((?<!\S)-[pP])(?!{_NUMBER}|[a-z]+[a-z_-]*(?!\S))\S+")
"""`-pX`; a word of small letters is an option with one hyphen: `-pidfile`."""

_PROGRAM = r"(?:^|(?<=[\s/]))(?:{})[\w.-]*(?=\s)"
_SMALL = re.compile(_PROGRAM.format("mysql|mariadb|mydumper|xtrabackup|sshpass|7z"))
_LARGE = re.compile(_PROGRAM.format("ipmitool|sqlcmd|zip"))
"""Programs of which it is always a password, whatever it looks like."""
_ALWAYS = ((_SMALL, re.compile(r"((?<!\S)-p)\S+")), (_LARGE, re.compile(r"((?<!\S)-P\s*)(?!-)\S+")))
_SSHPASS = re.compile(r"((?<!\S)(?:\S*/)?sshpass\s+-p\s+)\S+")


def redact(field: str, value: object) -> object:
    """What may be shown of a setting: nothing under a secret's name, no password in a URL, nothing nested."""
    path = field.lower()
    if not path.endswith("_file") and any(word in path for word in _SECRET_WORDS):
        return HIDDEN
    if isinstance(value, str):
        return _redact_line(value)
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else value


def _redact_line(line: str) -> str:
    """A command line or a URL without its secrets."""
    shown = _PASSWORD.sub(rf"\1\2{HIDDEN}", line)
    for program, pattern in _ALWAYS:
        if program.search(line):
            shown = pattern.sub(rf"\1{HIDDEN}", shown)
    for pattern in (_OPTION, _QUERY, _LOGIN_OPTION, _HEADER, _SSHPASS):
        shown = pattern.sub(rf"\1{HIDDEN}", shown)
    shown = _LOGIN.sub(rf"\1\2{HIDDEN}", shown)
    for pattern in (_SHORT, _GLUED):
        shown = pattern.sub(rf"\1{HIDDEN}", shown)
    return shown
