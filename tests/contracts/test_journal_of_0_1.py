"""The journal that version 0.1 wrote: one event of every kind and version it knew, read as it was meant.

`events.jsonl` and `replayed.json` were written by the last commit of 0.1, the second by its own replay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from homeostat.components import catalogue
from homeostat.kernel.journal import Envelope, Seq
from homeostat.server.replay import Replay

FOLDER = Path(__file__).with_name("journal_0_1")
RENAMED = {"room": "component"}
"""Fields that have another name since then."""
EVENTS: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "events.jsonl").read_text().splitlines()
]


def envelope(row: dict[str, Any]) -> Envelope:
    event = catalogue().decode(row["kind"], row["version"], dict(row["payload"]))
    given = {name: row[name] for name in ("kind", "version", "subject", "cause", "trace", "at_ns", "origin")}
    return Envelope(seq=Seq(row["seq"]), payload=row["payload"], event=event, **given)


def test_every_event_is_read_as_0_1_read_it() -> None:
    assert len({(row["kind"], row["version"]) for row in EVENTS}) == 49
    for row in EVENTS:
        read = orjson.loads(orjson.dumps(envelope(row).event))
        meant = {RENAMED.get(name, name): value for name, value in row["decoded"].items()}
        assert meant.items() <= read.items(), row["kind"]


def test_a_replay_says_what_the_replay_of_0_1_said() -> None:
    replay = Replay()
    for row in EVENTS:
        assert replay.take(envelope(row)) == ""
    expected = json.loads((FOLDER / "replayed.json").read_text())
    assert (replay.first, replay.last, replay.unknown) == (expected["first"], expected["last"], 0)
    assert sorted(replay.unjudged) == expected["unjudged"]
    rows = orjson.loads(orjson.dumps(replay.rows))
    assert {table: rows.pop(table) for table in expected["rows"]} == expected["rows"]
    unsaid = dict.fromkeys(("cpus", "memory_mb", "disk_gb", "architecture"))
    assert rows.pop("node") == dict.fromkeys(("n1", "n2", "n3"), unsaid), "0.1 said nothing of its machines"
    assert not any(rows.values()), "0.1 had no such table"
