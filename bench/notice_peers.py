"""The peers of `bench/notice.py`: the serial inspector of OPNFV Doctor's 2016 sample, and Alertmanager.

Doctor's inspector knew the servers of each host from its start. When a host was reported down it called nova's
`reset_state(error)` for one server after the other, each call waiting for its answer, and forced the host
down at last. Each reset made nova, Ceilometer and Aodh send one POST to the consumer. Here nova is a process
that waits as long as a call shall take, sends that POST itself, and answers: Ceilometer and Aodh cost
nothing, which favours the peer, and so does that nothing is written to a disk.

Run as a program, this is that nova: `notice_peers.py CONSUMER_PORT`, prints its own port.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
import time
import urllib.request

import uvloop

_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


def doctor(port: int, servers: list[str], delay_ms: float) -> int:
    """Tell of a dead host as the sample did: when it began, CLOCK_REALTIME in ns. Returns when all are reset."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    body = json.dumps({"os-resetState": {"state": "error"}})
    began_ns = time.time_ns()
    for server in servers:
        connection.request("POST", f"/{delay_ms}/servers/{server}/action", body)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 202:
            raise SystemExit(f"bench: the stand-in for nova answered {answer.status}")
    connection.close()
    return began_ns


def alertmanager(port: int, group: str, alerts: int, *, ends: bool, apart: bool = False) -> int:
    """POST so many alerts at once: when that began, CLOCK_REALTIME in ns. `ends`: they are over."""
    body = json.dumps(
        [
            {
                "labels": {"alertname": "guest", "host": f"{group}-{number}" if apart else group, "guest": f"g{number:05}"},
                **({"endsAt": "2001-01-01T00:00:00Z"} if ends else {}),
            }
            for number in range(alerts)
        ]
    ).encode()  # fmt: skip
    url = f"http://127.0.0.1:{port}/api/v2/alerts"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    began_ns = time.time_ns()
    urllib.request.urlopen(request, timeout=60).close()
    return began_ns


class _Nova(asyncio.Protocol):
    def __init__(self, consumer: asyncio.Transport) -> None:
        self._consumer, self._seen = consumer, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, rest = self._seen.partition(b"\r\n\r\n")
        length = next(
            (int(each[15:]) for each in head.split(b"\r\n") if each[:15].lower() == b"content-length:"), 0
        )
        if not end or len(rest) < length:
            return
        self._seen = b""
        _, delay_ms, _, server, _ = head.split(b" ", 2)[1].split(b"/")
        loop = asyncio.get_running_loop()
        if float(delay_ms) == 0:
            self._done(server)
        else:
            loop.call_later(float(delay_ms) / 1e3, self._done, server)

    def _done(self, server: bytes) -> None:
        traits = [["state", 1, "error"], ["instance_id", 1, server.decode()]]
        told = {"alarm_name": "doctor_alarm", "current": "alarm", "severity": "moderate", "alarm_id": server.decode(),
                "reason_data": {"event": {"event_type": "compute.instance.update", "traits": traits}, "type": "event"}}  # fmt: skip
        body = json.dumps(told).encode()
        self._consumer.write(
            b"POST /failure HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        self._transport.write(_ACCEPTED)


async def main(consumer_port: int) -> None:
    """Stand in for nova for ever."""
    loop = asyncio.get_running_loop()
    consumer, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", consumer_port)
    server = await loop.create_server(lambda: _Nova(consumer), "127.0.0.1", 0)
    os.write(1, f"{server.sockets[0].getsockname()[1]}\n".encode())
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
