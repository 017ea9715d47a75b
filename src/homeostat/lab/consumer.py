"""The lab's webhook consumer: hears notices, checks them, keeps a log of its own and prints one line each.

`python -m homeostat.lab.consumer --port 8790 --keys-file F --heard-file F`. It shares nothing with the
server but the keys: its log is the oracle against which the server's word is compared.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from homeostat.kernel.clock import Clock, SystemClock
from homeostat.kernel.errors import CorruptState, HomeostatError, NotAllowed
from homeostat.kernel.files import read_json
from homeostat.kernel.positional_log import open_log, seconds
from homeostat.lab.hearing import Record, describe, verify
from homeostat.lab.plan import LOOPBACK

HANDLED_HEADER = "Homeostat-Handled"
_BODY_BYTES_MAX = 8 * 1024 * 1024


class Consumer:
    """POST /hear/<subscription>."""

    def __init__(
        self, keys: Mapping[str, str], record: Record, clock: Clock, doctor_log: logging.Logger | None = None
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
            verify(request.headers.get("Homeostat-Signature"), body, self._keys, time.time())
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
            print(describe(name, notice), flush=True)
        handled = f"received={read_ns},handled={self._clock.wall_ns()}"
        heard = {"heard": key, "duplicate": duplicate}
        return web.json_response(heard, headers={HANDLED_HEADER: handled})

    def _log_for_doctor(self, notice: Mapping[str, Any], body: bytes, read_ns: int) -> None:
        """The two lines of Doctor's sample consumer; it knows of failures only, never of their end."""
        if self._doctor_log is not None and notice.get("transition") == "raised":
            self._doctor_log.info("doctor consumer notified at %s", seconds(read_ns))
            self._doctor_log.info("received data = %s", body.decode(errors="replace"))

    def _refuse(self, line: Mapping[str, Any], status: int, reason: str) -> web.Response:
        self._record.append({**line, "status": status, "duplicate": False, "reason": reason})
        print(f"{line['subscription']}: refused: {reason}", flush=True)
        return web.json_response({"refused": reason}, status=status)


def main() -> None:
    """The command line of the consumer."""
    parser = argparse.ArgumentParser(prog="homeostat.lab.consumer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keys-file", type=Path, required=True)
    parser.add_argument("--heard-file", type=Path, required=True)
    parser.add_argument("--doctor-log", type=Path)
    told = parser.parse_args()
    try:
        keys = (read_json(told.keys_file) or {}).get("keys")
        if not isinstance(keys, dict):
            raise CorruptState(f"{told.keys_file}: has no keys; start `homeostat up` again")
        doctor_log = None if told.doctor_log is None else open_log(told.doctor_log)
        consumer = Consumer(keys, Record(told.heard_file), SystemClock(), doctor_log)
        site = web.Application(client_max_size=_BODY_BYTES_MAX)
        site.router.add_post("/hear/{name}", consumer.hear)
        web.run_app(site, host=LOOPBACK, port=told.port, print=None, access_log=None, shutdown_timeout=1.0)
    except (HomeostatError, OSError) as error:
        raise SystemExit(f"consumer: {error}") from error


if __name__ == "__main__":
    main()
