"""What a webhook consumer must check and remember. Pure but for the record file.

A request is accepted when its signature is right for a key we know and its time is within five minutes of
ours; a key heard before is a duplicate, which is accepted and flagged: delivery is at least once.

Written for itself and not with the sender's own signing: an oracle that shares code shares its mistakes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from homeostat.kernel.errors import CorruptState, NotAllowed

TOLERANCE_S = 300


def signature(secret: str, key_id: str, at_s: int, body: bytes) -> str:
    """The value of `Homeostat-Signature` for a body sent at `at_s` (seconds since the epoch)."""
    return f"t={at_s},kid={key_id},v1={_mac(secret, at_s, body)}"


def verify(header: str | None, body: bytes, keys: Mapping[str, str], now_s: float) -> None:
    """NotAllowed says what is wrong with the signature; nothing of the secret is in the message."""
    if header is None:
        raise NotAllowed("no Homeostat-Signature header")
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    at, key_id, given = parts.get("t", ""), parts.get("kid", ""), parts.get("v1", "")
    if not (at.isascii() and at.isdigit() and len(at) < 16 and given):
        raise NotAllowed("Homeostat-Signature is not t=<seconds>,kid=<key>,v1=<hex>")
    if key_id not in keys:
        raise NotAllowed(f"key {key_id[:40]!r} is not known here")
    if not hmac.compare_digest(_mac(keys[key_id], int(at), body).encode(), given.encode()):
        raise NotAllowed("the signature does not fit the body")
    if abs(now_s - int(at)) > TOLERANCE_S:
        raise NotAllowed(f"signed {now_s - int(at):.0f} s ago; {TOLERANCE_S} s are accepted")


def _mac(secret: str, at_s: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()


def describe(subscription: str, notice: Mapping[str, Any]) -> str:
    """One line for a person. What a newer server leaves out is left out here."""
    told = notice.get("fault")
    fault: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    transition = str(notice.get("transition", "told"))
    words = [
        transition.upper(),
        fault.get("severity"),
        fault.get("kind"),
        fault.get("about"),
        fault.get("id"),
    ]
    outage_ms = fault.get("outage_ms")
    if isinstance(outage_ms, int | float):
        words.append(f"after {outage_ms / 1000:.3f} s")
    reason = fault.get("cleared_reason") or fault.get("reason")
    return f"{subscription}: {' '.join(str(word) for word in words if word)}" + (
        f" ({reason})" if reason else ""
    )


class Record:
    """heard.jsonl: one line a request, on disk before the answer. Remembers the keys across restarts."""

    def __init__(self, path: Path) -> None:
        self._keys: set[str] = set()
        if path.exists():
            self._recall(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def is_known(self, key: str) -> bool:
        """Whether a notice with this idempotency key was heard before."""
        return key in self._keys

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line durably; an accepted key is known from now on."""
        os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        os.fdatasync(self._file)
        if line["status"] == 200:
            self._keys.add(str(line["key"]))

    def _recall(self, path: Path) -> None:
        body = path.read_bytes()
        whole = body[: body.rfind(b"\n") + 1]
        if len(whole) < len(body):
            os.truncate(path, len(whole))  # a line that was cut short was never answered
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                heard = orjson.loads(line)
                if heard["status"] == 200:
                    self._keys.add(str(heard["key"]))
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise CorruptState(
                    f"{path}: line {number} is no heard notice; restore the file or move it away"
                ) from error
