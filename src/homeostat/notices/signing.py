"""The signature of a webhook: made here, checked by consumers, who may import this module. Pure.

    Homeostat-Signature: t=<unix seconds>,kid=<key id>,v1=<hex HMAC-SHA256 of "<t>." + body>

A consumer verifies before it parses the body, refuses what is older than five minutes (a replay), and drops
what carries an Idempotency-Key that it has handled: delivery is at least once. To change a secret, know the
old and the new one under two key ids for a while.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from homeostat.kernel.errors import NotAllowed

HEADER = "Homeostat-Signature"
KEY_HEADER = "Idempotency-Key"
TOLERANCE_S = 300.0
_HEADER_LENGTH_MAX = 512


def sign(secret: str, key_id: str, at_s: int, body: bytes) -> str:
    """The value of the header for a body sent at `at_s`, seconds since the epoch."""
    return f"t={at_s},kid={key_id},v1={_mac(secret, at_s, body)}"


def headers(secret: str, key_id: str, at_s: int, key: str, body: bytes) -> dict[str, str]:
    """What a webhook carries: the notice's key, if it has one, and the signature of this attempt."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "homeostat",
        **({KEY_HEADER: key} if key else {}),
        HEADER: sign(secret, key_id, at_s, body),
    }


def verify(
    header: str | None,
    body: bytes,
    secrets: Mapping[str, str],
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Returns when the body is ours and fresh; NotAllowed says in one line what is wrong.

    `secrets` maps key id to secret, `now_s` is the consumer's wall clock. The comparison takes the same time
    for every wrong signature.
    """
    if header is None:
        raise NotAllowed(f"no {HEADER} header; only signed notices are accepted")
    parts = _parts(header)
    at, key_id, given = parts.get("t", ""), parts.get("kid", ""), parts.get("v1", "")
    if not (at.isascii() and at.isdigit() and len(at) <= 12 and key_id and given):
        raise NotAllowed(f"{HEADER} is not t=<seconds>,kid=<key id>,v1=<hex>")
    secret = secrets.get(key_id)
    if secret is None:
        raise NotAllowed(f"{HEADER}: key id {key_id[:64]!r} is not known here")
    if not hmac.compare_digest(_mac(secret, int(at), body).encode(), given.encode(errors="replace")):
        raise NotAllowed(f"{HEADER} does not fit the body; the secrets differ or the body was changed")
    age_s = now_s - int(at)
    if abs(age_s) > tolerance_s:
        raise NotAllowed(f"{HEADER} is {age_s:.0f} s old, {tolerance_s:g} s are accepted; compare the clocks")


def _parts(header: str) -> dict[str, str]:
    if len(header) > _HEADER_LENGTH_MAX:
        return {}
    pairs = [part.strip().partition("=")[::2] for part in header.split(",")]
    found = dict(pairs)
    return found if len(found) == len(pairs) else {}


def _mac(secret: str, at_s: int, body: bytes) -> str:
    return hmac.digest(secret.encode(), f"{at_s}.".encode() + body, "sha256").hex()
