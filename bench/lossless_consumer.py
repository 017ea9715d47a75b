"""The consumers of `bench/lossless.py`: they write down who told them what, then answer. Knows no Homeostat.

Run as a process of its own: `python lossless_consumer.py PORT LOG`. One JSON line a request: the path, the
idempotency key, the body. A line is in the file before the answer goes out; `kill -9` is this consumer's outage.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO


class Hear(http.server.BaseHTTPRequestHandler):
    """POST /<who tells>."""

    log: BinaryIO
    writing = threading.Lock()

    def do_POST(self) -> None:
        """Read, write down, answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        line = {"path": self.path, "key": self.headers.get("Idempotency-Key", ""), "at_ns": time.time_ns()}
        with self.writing:
            self.log.write(json.dumps({**line, "body": json.loads(body)}).encode() + b"\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer.request_queue_size = 512
    with Path(sys.argv[2]).open(
        "ab", buffering=0
    ) as Hear.log:  # one write a line: kill -9 leaves whole lines
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hear).serve_forever()
