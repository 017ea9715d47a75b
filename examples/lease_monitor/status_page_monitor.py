"""A monitoring plug-in: hosts have failed when a page says so, or when somebody who saw it leaves an event.

The page is a JSON object, `{"n1": "ok", "n2": "power supply"}`: whatever is not "ok" is why a host failed. It
is a file or a URL; power controllers, asset databases and rack monitors can write one. In server.yaml:

    leases:
      monitors:
        status-page:
          polling_interval: 10        # without it the 30 seconds below
          confirm_polls: 2            # two of the last three pages must say so
          confirm_window: 3
          options: {page: "https://racks.example/hosts.json", complete: true}

With `complete`, a host that the page does not name is absent: not reservable at once, failed at the
next page.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.request import urlopen

from homeostat.contracts.nouns import HostId
from homeostat.leases.monitoring import JOURNAL_TOPIC, HostOutcome, HostReport, MonitorOptions, Notification

BYTES_MAX = 1024 * 1024
TIMEOUT_S = 5.0


class StatusPageMonitor:
    """Both kinds of plug-in at once: it is told (`PushMonitor`) and asked (`PollingMonitor`)."""

    topics = (JOURNAL_TOPIC,)
    event_types = ("FaultInjected",)

    def __init__(self, options: MonitorOptions) -> None:
        """Whatever is raised here is shown as the state of this monitor; the server runs on."""
        known = {"page", "complete"}
        if unknown := options.options.keys() - known:
            raise ValueError(f"options {sorted(unknown)} are not known; known are {sorted(known)}")
        self._page = str(options.options["page"])
        self.lists_all = bool(options.options.get("complete", False))
        self.polling_interval_s = options.polling_interval_s or 30.0
        self.healing_interval_s = options.healing_interval_s

    def on_notification(self, notification: Notification) -> Iterator[HostReport]:
        """Somebody says that a host was broken on purpose: do not wait for the next page."""
        if notification.payload["what"] == "power off":
            host = HostId(notification.payload["host"])
            yield HostReport(host, HostOutcome.FAILED, "powered off on purpose", notification.at_ns)

    async def poll(self, hosts: Collection[HostId]) -> list[HostReport]:
        """Read the page in a thread: a slow server must not stop the others. An error accuses no host."""
        page = await asyncio.to_thread(self._read)
        return [_report(host, page[host]) for host in hosts if host in page]

    def _read(self) -> dict[str, str]:
        if self._page.startswith(("http://", "https://")):
            with urlopen(self._page, timeout=TIMEOUT_S) as answer:
                body = answer.read(BYTES_MAX + 1)
        else:
            with Path(self._page).open("rb") as file:
                body = file.read(BYTES_MAX + 1)
        if len(body) > BYTES_MAX:
            raise ValueError(f"the page has more than {BYTES_MAX} bytes")
        page = json.loads(body)
        if not isinstance(page, dict) or not all(isinstance(each, str) for each in page.values()):
            raise ValueError("the page must be a JSON object of host names and texts")
        return page


def _report(host: HostId, text: str) -> HostReport:
    if text == "ok":
        return HostReport(host, HostOutcome.RECOVERED, "the page says ok")
    return HostReport(host, HostOutcome.FAILED, text)
