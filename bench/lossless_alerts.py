"""The source of alerts for the peer of `bench/lossless.py`: breaks by the schedule and POSTs to Alertmanager.

Run as a process of its own: `python lossless_alerts.py SCHEDULE URL LOG RESEND_S`. What it breaks is in its log
before anything is sent. An alert is POSTed until Alertmanager has accepted it. With RESEND_S 0 that is all; else
everything that fires or has been resolved is POSTed again every RESEND_S, as Prometheus does every minute.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any


class Source:
    """What fires and what is over, and one POST at a time."""

    def __init__(self, url: str, resend_s: float) -> None:
        self._url, self._resend_s = f"{url}/api/v2/alerts", resend_s
        self._alerts: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def change(self, resource: str, transition: str) -> None:
        """It broke or it is back; returns when Alertmanager has accepted that."""
        now = datetime.now(UTC)
        with self._lock:
            if transition == "raised":
                labels = {"alertname": "resource_down", "instance": resource}
                self._alerts[resource] = {"labels": labels, "startsAt": now.isoformat()}
            else:
                self._alerts[resource]["endsAt"] = now.isoformat()
            alert = dict(self._alerts[resource])
        while not self._post([self._lasting(alert)]):
            time.sleep(0.05)

    def resend(self) -> None:
        """Everything again and again, for ever."""
        while True:
            time.sleep(self._resend_s)
            with self._lock:
                alerts = [self._lasting(alert) for alert in self._alerts.values()]
            if alerts:
                self._post(alerts)

    def _lasting(self, alert: dict[str, Any]) -> dict[str, Any]:
        """A firing alert that is re-sent ends by itself four rounds after the last one, as Prometheus says it."""
        if self._resend_s and "endsAt" not in alert:
            ends = datetime.now(UTC) + timedelta(seconds=4 * self._resend_s)
            return {**alert, "endsAt": ends.isoformat()}
        return alert

    def _post(self, alerts: list[dict[str, Any]]) -> bool:
        body = json.dumps(alerts).encode()
        request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError):
            return False


def main(schedule: Path, url: str, log: Path, resend_s: float) -> None:
    """Follow the schedule; then stay until somebody ends us, for what is re-sent."""
    plan = json.loads(schedule.read_text())
    start_file = schedule.with_name("start")
    while not start_file.exists():
        time.sleep(0.01)
    start_s = float(start_file.read_text())
    source = Source(url, resend_s)
    if resend_s:
        threading.Thread(target=source.resend, daemon=True).start()
    with log.open("w") as file:
        for at_s, resource, transition in plan["changes"]:
            time.sleep(max(0.0, start_s + at_s - time.monotonic()))
            file.write(json.dumps({"resource": resource, "transition": transition}) + "\n")
            file.flush()
            source.change(resource, transition)
        file.write('"done"\n')
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
