"""The inbox of the write path is bounded in bytes, and what is decided in one piece in work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Observations, ResourceStatus, ResourceTransition, Snapshot, encode
from homeostat.ingest.inbox import BATCH_BYTES_MAX, INBOX_BYTES_MAX, WORK_MAX, EntryRequest, Inbox
from homeostat.kernel.bus import OnMessage
from homeostat.kernel.clock import SystemClock
from homeostat.kernel.journal import Seq

N1 = HostId("n1")
LONG_S = 60.0


class Lines:
    """A bus whose messages a test hands over."""

    connected = True

    def __init__(self) -> None:
        self.heard: dict[str, OnMessage] = {}

    def on_reconnect(self, told: object) -> None:
        pass

    async def subscribe(self, pattern: str, hear: OnMessage) -> None:
        self.heard[pattern.rpartition(".")[2]] = hear

    async def publish(self, subject: str, body: bytes) -> bool:
        return True

    async def flush(self, timeout_s: float = 1.0) -> bool:
        return True

    def say(self, kind: str, message: object) -> None:
        self.heard[kind](f"node.n1.{kind}", encode(message))


def status(seq: int, reason: str = "") -> ResourceStatus:
    return ResourceStatus(
        ResourceId(f"r{seq}"), ResourceKind.SERVICE, Owner("p"), "a", ResourceState.UP, reason, 1, seq
    )


def observed(first: int, count: int, reason: str = "") -> Observations:
    transitions = tuple(ResourceTransition(status(seq, reason), 1) for seq in range(first, first + count))
    return Observations(N1, "boot", 1, 1, transitions)


async def inbox(lines: Lines, inbox_max: int = 10_000) -> Inbox:
    made = Inbox(lines, SystemClock(), inbox_max)
    await made.listen()
    return made


async def batches(of: Inbox, most: int = 10_000) -> list[list[object]]:
    """Everything that is there, batch after batch."""
    found: list[list[object]] = []
    while len(found) < most and (batch := await of.next_batch(0.001)):
        found.append([item for item, _ in batch])
    return found


def work(batch: list[object]) -> int:
    return sum(len(each.transitions) for each in batch if isinstance(each, Observations))


async def test_many_small_messages_still_share_a_batch() -> None:
    lines = Lines()
    made = await inbox(lines)
    for number in range(100):
        lines.say("observations", observed(number, 1))
    assert [len(batch) for batch in await batches(made)] == [100]
    for number in range(WORK_MAX + 1):
        lines.say("observations", observed(number, 1))
    assert [len(batch) for batch in await batches(made)] == [WORK_MAX, 1]


async def test_few_messages_with_many_transitions_do_not() -> None:
    lines = Lines()
    made = await inbox(lines)
    for number in range(8):
        lines.say("observations", observed(1 + 100 * number, 100))
    found = await batches(made)
    assert max(map(work, found)) <= WORK_MAX
    assert sum(map(work, found)) == 800


async def test_few_messages_with_long_texts_do_not_either() -> None:
    lines = Lines()
    made = await inbox(lines)
    huge = observed(1, 1, "x" * 400_000)
    for _ in range(30):
        lines.say("observations", huge)
    most = BATCH_BYTES_MAX // len(encode(huge))
    assert [len(batch) for batch in await batches(made)] == [most, most, 30 - 2 * most]


async def test_one_message_with_more_than_a_batch_comes_in_pieces_in_its_order() -> None:
    lines = Lines()
    made = await inbox(lines)
    whole = observed(1, 1000)
    lines.say("observations", whole)
    lines.say("observations", observed(1001, 1))
    found = await batches(made)
    pieces = [each for batch in found for each in batch]
    assert all(isinstance(each, Observations) for each in pieces)
    assert max(map(work, found)) <= WORK_MAX
    seqs = [t.level.seq for each in pieces if isinstance(each, Observations) for t in each.transitions]
    assert seqs == list(range(1, 1002))
    first = pieces[0]
    assert isinstance(first, Observations)
    assert replace(whole, transitions=first.transitions) == first


async def test_a_snapshot_stays_whole_and_comes_alone() -> None:
    lines = Lines()
    made = await inbox(lines)
    whole = Snapshot(N1, "boot", "life", 1, tuple(status(seq) for seq in range(1000)))
    lines.say("observations", observed(1, 1))
    lines.say("levels", whole)
    lines.say("observations", observed(2, 1))
    assert [len(batch) for batch in await batches(made)] == [1, 1, 1]


async def test_what_waits_is_bounded_in_bytes_and_the_room_comes_back() -> None:
    lines = Lines()
    made = await inbox(lines)
    huge = observed(1, 1, "x" * 400_000)
    fits = INBOX_BYTES_MAX // len(encode(huge))
    for _ in range(fits + 5):
        lines.say("observations", huge)
    assert made.inbox.qsize() == fits
    await made.next_batch(LONG_S)
    there = made.inbox.qsize()
    lines.say("observations", huge)
    assert made.inbox.qsize() == there + 1


async def test_a_request_keeps_its_place_behind_a_message_that_comes_in_pieces() -> None:
    lines = Lines()
    made = await inbox(lines)
    lines.say("observations", observed(1, 600))
    done: asyncio.Future[Seq] = asyncio.get_running_loop().create_future()
    await made.put(EntryRequest(lambda entry: None, done))
    kinds = [type(each).__name__ for batch in await batches(made) for each in batch]
    assert kinds == ["Observations"] * 3 + ["EntryRequest"]
