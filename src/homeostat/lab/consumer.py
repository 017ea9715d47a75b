"""The lab's webhook consumer: receives notices, verifies them, keeps a log of its own and prints one line
each.

`python -m homeostat.lab.consumer --port 8790 --keys-file F --heard-file F`. It shares nothing with the
server but the keys: its log (heard.jsonl, on disk before the answer) is the oracle against which the
server's word is compared. Signing is written here once more for that reason: an oracle that shares code
shares its mistakes.

A request is accepted when its signature is right for a key we know and its time is within five minutes of
ours; a key received before is a duplicate, which is accepted and flagged: delivery is at least once.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from homeostat.faults.doctor_log import format_seconds, open_log
from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.errors import CorruptState, HomeostatError, NotAllowed
from homeostat.kernel.files import append_whole, read_json
from homeostat.kernel.terminal import drop_unwritable_output
from homeostat.lab.plan import LOOPBACK

TOLERANCE_S = 300


def verify_signature(header: str | None, body: bytes, keys: Mapping[str, str], now_s: float) -> None:
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


def describe_notice(subscription: str, notice: Mapping[str, Any]) -> str:
    """One line for a person. What a newer server leaves out is left out here."""
    found = notice.get("fault")
    fault: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    transition = str(notice.get("transition", "notice"))
    words = [transition.upper(), *(fault.get(name) for name in ("severity", "kind", "about", "id"))]
    outage_ms = fault.get("outage_ms")
    if isinstance(outage_ms, int | float):
        words.append(f"after at most {outage_ms / 1000:.3f} s")
    recovered = fault.get("recovered")
    if isinstance(recovered, list):
        words += [f"{each.get('subject')} on {each.get('host')}" for each in recovered]
    reason = fault.get("cleared_reason") or fault.get("reason")
    said = f"{subscription}: {' '.join(str(word) for word in words if word)}"
    return f"{said} ({reason})" if reason else said


class ReceivedNotices:
    """heard.jsonl: one line a request, on disk before the answer. Remembers the keys across restarts."""

    def __init__(self, path: Path) -> None:
        self._keys: set[str] = set()
        if path.exists():
            self._recall(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def is_known(self, key: str) -> bool:
        return key in self._keys

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line durably; an accepted key is known from now on."""
        append_whole(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
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
                    f"{path}: line {number} is no received notice; restore the file or move it away"
                ) from error


HANDLED_HEADER = "Homeostat-Handled"
_BODY_BYTES_MAX = 8 * 1024 * 1024


class WebhookConsumer:
    """POST /hear/<subscription>."""

    def __init__(
        self,
        keys: Mapping[str, str],
        record: ReceivedNotices,
        clock: Clock,
        doctor_log: logging.Logger | None = None,
    ) -> None:
        self._doctor_log = doctor_log
        self._keys = keys
        self._record = record
        self._clock = clock

    async def hear(self, request: web.Request) -> web.Response:
        """200 when accepted (also a duplicate), 401 when the signature is wrong, 400 when it is no notice."""
        arrived = {"received_at_ns": self._clock.wall_ns(), "received_mono_ns": self._clock.mono_ns()}
        body = await request.read()
        read_ns = self._clock.wall_ns()
        name, key = request.match_info["name"], request.headers.get("Idempotency-Key", "")
        line: dict[str, Any] = {**arrived, "subscription": name, "key": key}
        try:
            verify_signature(request.headers.get("Homeostat-Signature"), body, self._keys, time.time())
        except NotAllowed as error:
            return self._refuse(line, 401, str(error))
        try:
            notice = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return self._refuse(line, 400, f"not JSON: {error}")
        if not isinstance(notice, dict) or not key:
            return self._refuse(line, 400, "a notice is a JSON object with an Idempotency-Key header")
        duplicate = self._record.is_known(key)
        self._record.append({**line, "status": 200, "duplicate": duplicate, "body": notice})
        if not duplicate:
            self._log_for_doctor(notice, body, read_ns)
            print(describe_notice(name, notice), flush=True)
        handled = f"received={read_ns},handled={self._clock.wall_ns()}"
        heard = {"heard": key, "duplicate": duplicate}
        return web.json_response(heard, headers={HANDLED_HEADER: handled})

    def _log_for_doctor(self, notice: Mapping[str, Any], body: bytes, read_ns: int) -> None:
        """The two lines of Doctor's sample consumer; it knows of failures only, never of their end."""
        if self._doctor_log is not None and notice.get("transition") == "raised":
            self._doctor_log.info("doctor consumer notified at %s", format_seconds(read_ns))
            self._doctor_log.info("received data = %s", body.decode(errors="replace"))

    def _refuse(self, line: Mapping[str, Any], status: int, reason: str) -> web.Response:
        self._record.append({**line, "status": status, "duplicate": False, "reason": reason})
        print(f"{line['subscription']}: refused: {reason}", flush=True)
        return web.json_response({"refused": reason}, status=status)


def main() -> None:
    parser = argparse.ArgumentParser(prog="homeostat.lab.consumer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keys-file", type=Path, required=True)
    parser.add_argument("--heard-file", type=Path, required=True)
    parser.add_argument("--doctor-log", type=Path)
    given = parser.parse_args()
    drop_unwritable_output("stdout", "stderr")
    try:
        keys = (read_json(given.keys_file) or {}).get("keys")
        if not isinstance(keys, dict):
            raise CorruptState(f"{given.keys_file}: has no keys; start `homeostat up` again")
        doctor_log = None if given.doctor_log is None else open_log(given.doctor_log)
        consumer = WebhookConsumer(keys, ReceivedNotices(given.heard_file), SystemClock(), doctor_log)
        site = web.Application(client_max_size=_BODY_BYTES_MAX)
        site.router.add_post("/hear/{name}", consumer.hear)
        web.run_app(site, host=LOOPBACK, port=given.port, print=None, access_log=None, shutdown_timeout=1.0)
    except (HomeostatError, OSError) as error:
        raise SystemExit(f"consumer: {error}") from error


if __name__ == "__main__":
    main()
