"""A web service that is back a given time after its end: `PORT SECONDS PID_FILE LOG`. It forks at once.

LOG gets a line for each outage: how long nobody listened, in ms, from the death to the new socket.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from homeostat.kernel.processes import die_with_parent

port, seconds, pid_file, log = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def serve(died_ns: int) -> None:
    """Listen, say for how long nobody did, answer everybody."""
    server = socket.create_server(("127.0.0.1", port), backlog=64)
    back_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    fresh = pid_file.with_name("pid.new")
    fresh.write_text(f"{os.getpid()}\n")
    fresh.replace(pid_file)
    if died_ns:
        with log.open("a") as file:
            file.write(f"{(back_ns - died_ns) / 1e6:.1f}\n")
    while True:
        client, _ = server.accept()
        with client:
            client.settimeout(1)
            try:
                client.recv(4096)
                client.sendall(ANSWER)
            except OSError:
                continue


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
died_ns = 0
while True:
    ends_with_us = die_with_parent()
    if (child := os.fork()) == 0:
        ends_with_us()
        serve(died_ns)
    os.waitpid(child, 0)
    died_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(max(0.0, seconds - 0.002))
