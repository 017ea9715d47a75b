"""A recorded session of the unmodified client (tests/e2e/test_blazar_session.py), played again.

Each request is sent as the client sent it; each answer must be what the client got then, but for ids, for
the seconds that a person took, and for the words of a reason.
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from blazar_parts import Blazar, blazar
from lease_parts import reported

from homeostat.contracts.nouns import HostId
from homeostat.leases import timetable
from homeostat.leases.healing_loop import HealingDependencies, HealingLoop
from homeostat.leases.model import HostCapacity
from homeostat.leases.monitoring import HostOutcome
from homeostat.leases.settings import LeasesSettings
from homeostat.sim.drivers import InlineWorkers
from store_parts import Store

SESSION = json.loads(Path(__file__).with_name("blazar_session.json").read_text())
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?")
APART_S = 60
"""How far two dates may be apart: the time that commands took on the machine of the recording."""


class Replay:
    """The application, at the recorded moments and with the ids of this run."""

    def __init__(self, api: Blazar) -> None:
        self.api, self.ids = api, dict[str, str]()
        keeper, settings = api.service.keeper, LeasesSettings()
        parts = HealingDependencies(keeper, InlineWorkers(), api.service.clock, settings)
        self.healing = HealingLoop(parts)

    async def at(self, at_ns: int) -> None:
        """It is that moment, and what is due by then is done."""
        service = self.api.service
        service.clock.now_ns = at_ns  # type: ignore[union-attr]
        for event in timetable.due_events(service.keeper.book, at_ns):
            await service.keeper.decide(lambda book, context, of=event.id: timetable.begin(book, of, context))  # type: ignore[misc]
            await service.keeper.decide(
                lambda book, context, of=event.id: timetable.finish(book, of, context)
            )  # type: ignore[misc]

    async def host_changes(self, verb: str, name: str) -> None:
        """A host of the lab dies, or comes back."""
        keeper, host = self.api.service.keeper, HostId(name)
        if verb == "kill-host":
            await keeper.decide(lambda book, context: reported(book, host, HostOutcome.FAILED, context))
            assert await self.healing.look()
        else:
            await keeper.decide(lambda book, context: reported(book, host, HostOutcome.RECOVERED, context))

    async def exchange(self, caller: str, recorded: dict[str, Any]) -> None:
        """Send a request again and compare the answer."""
        sent = json.dumps([recorded["path"], recorded["body"]])
        path, body = json.loads(UUID.sub(lambda found: self.ids.get(found[0], found[0]), sent))
        status, answer = await self.api.call(caller, recorded["method"], path, body)
        assert status == recorded["status"], answer
        self.compare(recorded["answer"], answer, path)

    def compare(self, recorded: Any, now: Any, where: str) -> None:
        match recorded:
            case dict():
                assert isinstance(now, dict) and set(now) == set(recorded), where
                for name, value in recorded.items():
                    if name == "reason":
                        assert bool(now[name]) is bool(value), where
                    else:
                        self.compare(value, now[name], f"{where}.{name}")
            case list():
                assert isinstance(now, list) and len(now) == len(recorded), where
                for at, (one, other) in enumerate(zip(recorded, now, strict=True)):
                    self.compare(one, other, f"{where}.{at}")
            case str() if UUID.fullmatch(recorded):
                assert UUID.fullmatch(now) and self.ids.setdefault(recorded, now) == now, where
            case str() if DATE.fullmatch(recorded):
                apart = datetime.fromisoformat(recorded) - datetime.fromisoformat(now)
                assert abs(apart.total_seconds()) < APART_S, where
            case _:
                assert now == recorded, where


def capacities() -> dict[HostId, HostCapacity]:
    """The machines of the recording."""
    made = [
        each["answer"]["host"]
        for step in SESSION["steps"]
        if step.get("argv", [""])[0] == "host-create"
        for each in step["exchanges"]
    ]
    return {
        HostId(host["hypervisor_hostname"]): HostCapacity(
            host["vcpus"], host["memory_mb"], host["local_gb"], host["architecture"]
        )
        for host in made
    }


@pytest.mark.seed("003 flags lease")
async def test_every_answer_is_what_the_client_got_then(store: Store) -> None:
    async with blazar(store, hosts=(), names={"anna": ("operator", "blue")}) as api:
        api.service.capacities.update(capacities())
        replay = Replay(api)
        for step in SESSION["steps"]:
            await replay.at(step["at_ns"])
            if "homeostat" in step:
                await replay.host_changes(*step["homeostat"][1:])
                continue
            for recorded in step["exchanges"]:
                await replay.exchange(step["caller"], recorded)


def transcript() -> str:
    """The session as it stands in docs/leases.md: what was typed, and what was printed the first time."""
    lines: list[str] = []
    seen: set[str] = {"lease-create"}  # prints what lease-show does
    for step in SESSION["steps"]:
        if "homeostat" in step:
            lines.append("$ homeostat " + " ".join(step["homeostat"]))
            continue
        words = " ".join(shlex.quote(each) for each in step["argv"])
        lines.append(f"{step['caller']}$ blazar {words}")
        if step["argv"][0] not in seen or step["argv"][0] in ("lease-show", "allocation-list"):
            lines += [line.rstrip() for line in step["out"].splitlines()]
        seen.add(step["argv"][0])
    return "\n".join(f"    {line}" for line in lines)


def test_the_document_shows_this_session() -> None:
    """To write it anew: python -c 'import test_blazar_session as it; print(it.transcript())'."""
    assert transcript() in (Path(__file__).parents[2] / "docs" / "leases.md").read_text()


def test_the_session_has_every_command_and_every_flag() -> None:
    commands = {step["argv"][0] for step in SESSION["steps"] if "argv" in step}
    assert len(commands) == 16
    said = json.dumps(SESSION)
    for flag in ("degraded", "resources_changed", "reservable"):
        assert f'"{flag}": true' in said and f'"{flag}": false' in said
    assert "hs_" not in said
