"""The observation store: against a model, against kill -9, against a spoiled file and a full disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reports import finish, intent, report

from homeostat.contracts.nouns import ResourceId, ResourceState
from homeostat.contracts.roles import Assigned, Report
from homeostat.contracts.wire import Outcome, ResourceTransition, assigned_digest, digest
from homeostat.kernel.errors import StoreUnavailable
from homeostat.node.observations import ObservationStore


def numbers(transitions: tuple[ResourceTransition, ...]) -> list[int]:
    return [transition.level.seq for transition in transitions]


def test_what_was_recorded_is_there_after_opening_again(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    first = store.record(report("web", ResourceState.DOWN, intended=intent("web-1")))
    second = store.record(report("mail"))
    before = store.snapshot()
    store.close()
    again = ObservationStore(tmp_path / "o.db")
    assert again.snapshot() == before
    assert again.pending(10) == (first, second)
    assert again.open_intents() == {"web": intent("web-1")}
    assert again.digest() == digest(
        {ResourceId("web"): ResourceState.DOWN, ResourceId("mail"): ResourceState.UP}
    )
    assert numbers((again.record(report()),)) == [3]
    again.close()


def test_an_act_is_open_until_its_own_end(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    store.record(report(state=ResourceState.DOWN, intended=intent("a")))
    store.record(report(state=ResourceState.UP, finished=finish("somebody-else")))
    assert store.open_intents() == {"web": intent("a")}
    store.record(report(state=ResourceState.DOWN, intended=intent("b"), finished=finish("a", Outcome.FAILED)))
    assert store.open_intents() == {"web": intent("b")}
    store.record(report(finished=finish("b")))
    assert store.open_intents() == {}
    store.close()


def test_an_act_that_is_replaced_ends_as_unknown(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    store.record(report(state=ResourceState.DOWN, intended=intent("a")))
    transition = store.record(report(state=ResourceState.DOWN, intended=intent("b")))
    assert transition.finished is not None
    assert (transition.finished.action, transition.finished.outcome) == ("a", Outcome.UNKNOWN)
    assert store.open_intents() == {"web": intent("b")}
    assert store.record(report(state=ResourceState.DOWN, intended=intent("b"))).finished is None
    store.close()


def test_a_full_list_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db", unacknowledged_max=3)
    for _ in range(5):
        store.record(report())
    assert numbers(store.pending(10)) == [3, 4, 5]
    assert store.lost == 2
    store.close()
    store = ObservationStore(tmp_path / "o.db", unacknowledged_max=3)
    assert store.lost == 2, "the count survives"
    assert store.acknowledge(store.boot, 4)
    assert store.lost == 0
    assert numbers(store.pending(10)) == [5]
    store.close()


def test_what_the_server_got_before_it_was_dropped_is_not_lost(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db", unacknowledged_max=3)
    for _ in range(6):
        store.record(report())
    assert store.lost == 3
    store.acknowledge(store.boot, 2)
    assert store.lost == 1, "1 and 2 were on their way; only 3 is gone"
    store.close()


def test_acknowledgements_of_another_store_and_old_ones_change_nothing(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    for _ in range(3):
        store.record(report())
    assert not store.acknowledge("another", 3)
    assert store.acknowledge(store.boot, 2)
    assert not store.acknowledge(store.boot, 1)
    assert numbers(store.pending(10)) == [3]
    store.close()


def test_a_store_that_went_back_in_time_takes_a_new_name(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    store.record(report())
    boot = store.boot
    assert store.acknowledge(boot, 900)
    assert store.boot != boot
    assert numbers(store.pending(10)) == [1], "it is told again under the new name"
    store.close()


def test_an_epoch_is_remembered_for_ever(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    assert store.see_epoch(4)
    assert store.see_epoch(4)
    assert store.see_epoch(7)
    store.close()
    store = ObservationStore(tmp_path / "o.db")
    assert not store.see_epoch(6)
    assert store.see_epoch(7)
    store.close()


@pytest.mark.parametrize("damage", ["no database", "a torn page", "a foreign row", "a hole"])
def test_an_unreadable_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "o.db"
    store = ObservationStore(path)
    for _ in range(50):
        store.record(report())
    boot = store.boot
    store.close()
    match damage:
        case "no database":
            path.write_bytes(b"this is not a database" * 500)
        case "a torn page":
            body = bytearray(path.read_bytes())
            body[4096:12288] = os.urandom(8192)
            path.write_bytes(body)
        case _:
            database = sqlite3.connect(path)
            if damage == "a hole":
                database.execute("DELETE FROM transitions WHERE seq = 7")
            else:
                database.execute("UPDATE levels SET body = '{\"resource\": 1}'")
            database.commit()
            database.close()
    store = ObservationStore(path)
    assert store.boot != boot
    assert (store.seq, store.levels(), store.pending(10), store.lost) == (0, (), (), 0)
    assert numbers((store.record(report()),)) == [1]
    store.close()
    assert len(list(tmp_path.glob("o.db.corrupt-*"))) >= 1


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"o\.db: unable to open database file; check"):
        ObservationStore(tmp_path / "nowhere" / "o.db")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    store.record(report())
    before = store.snapshot()
    lock = sqlite3.connect(tmp_path / "o.db", isolation_level=None)
    store._file.database.execute("PRAGMA busy_timeout = 20")
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        store.record(report(state=ResourceState.DOWN))
    assert store.snapshot() == before
    lock.execute("ROLLBACK")
    lock.close()
    assert numbers((store.record(report(state=ResourceState.DOWN)),)) == [2]
    store.close()


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.db")
    assert (tmp_path / "o.db").stat().st_mode & 0o077 == 0
    store.close()


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from reports import report
from homeostat.node.observations import ObservationStore
store = ObservationStore(Path(sys.argv[1]))
store.acknowledge(store.boot, 0)  # a server answers the node that asks after a kill
print("ready", store.seq, flush=True)
while True:
    transition = store.record(report())
    print(transition.level.seq, flush=True)
    if transition.level.seq % 7 == 0:
        store.acknowledge(store.boot, transition.level.seq - 3)
        print("acknowledged", transition.level.seq - 3, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    boots, seen = set(), 0
    for round_number in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(20 + 7 * round_number)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        said = [line.split() for line in lines if line.endswith("\n")]
        recorded = [int(words[0]) for words in said if words[0].isdigit()]
        acknowledged = max((int(words[1]) for words in said if words[0] == "acknowledged"), default=0)
        assert recorded == list(range(seen + 1, recorded[-1] + 1)), "a number was used twice, or left out"
        store = ObservationStore(path)
        boots.add(store.boot)
        seen = store.seq
        assert seen >= recorded[-1]
        kept = numbers(store.pending(100_000))
        assert kept == list(range(kept[0], seen + 1)) and kept[0] <= recorded[-1]
        assert kept[0] >= acknowledged + 1
        assert store.lost == 0
        store.close()
    assert len(boots) == 1


class StoreAgainstModel(RuleBasedStateMachine):
    """The store and a few Python lists must never differ."""

    MAX = 5

    @initialize()
    def open(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "o.db"
        self.store = ObservationStore(self.path, self.MAX)
        self.boot = self.store.boot
        self.sent: list[ResourceTransition] = []
        self.acknowledged = 0
        self.epoch = 0
        self.levels: dict[str, ResourceState] = {}
        self.intents: dict[str, str] = {}
        self.begun = 0

    @rule(resource=st.sampled_from("abc"), state=st.sampled_from(ResourceState))
    def change(self, resource: str, state: ResourceState) -> None:
        self._record(report(resource, state))

    @rule(resource=st.sampled_from("abc"))
    def begin(self, resource: str) -> None:
        self.begun += 1
        before = self.intents.get(resource)
        action = f"{resource}-{self.begun}"
        transition = self._record(report(resource, ResourceState.DOWN, intended=intent(action)))
        assert (transition.finished.action if transition.finished else None) == before
        self.intents[resource] = action

    @rule(resource=st.sampled_from("abc"))
    def end(self, resource: str) -> None:
        action = self.intents.pop(resource, "never-begun")
        self._record(report(resource, ResourceState.UP, finished=finish(action)))

    @rule(back=st.integers(0, 8))
    def acknowledge(self, back: int) -> None:
        seq = max(0, len(self.sent) - back)
        assert self.store.acknowledge(self.boot, seq) == (seq > self.acknowledged)
        self.acknowledged = max(self.acknowledged, seq)

    @rule(epoch=st.integers(0, 9))
    def hear_of_epoch(self, epoch: int) -> None:
        assert self.store.see_epoch(epoch) == (epoch >= self.epoch)
        self.epoch = max(self.epoch, epoch)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = ObservationStore(self.path, self.MAX)

    def _record(self, what: Report) -> ResourceTransition:
        transition = self.store.record(what)
        assert transition.level.seq == len(self.sent) + 1
        self.sent.append(transition)
        self.levels[what.resource] = what.state
        return transition

    @invariant()
    def agree(self) -> None:
        first = max(self.acknowledged, len(self.sent) - self.MAX)
        assert self.store.pending(100) == tuple(self.sent[first:])
        assert self.store.pending(2, after=first + 1) == tuple(self.sent[first + 1 : first + 3])
        assert self.store.lost == first - self.acknowledged
        assert {level.resource: level.state for level in self.store.levels()} == self.levels
        assert {resource: act.action for resource, act in self.store.open_intents().items()} == self.intents
        assert self.store.digest() == digest({ResourceId(k): v for k, v in self.levels.items()})
        assert (self.store.boot, self.store.seq) == (self.boot, len(self.sent))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_an_assignment_is_on_disk_and_is_not_confirmed_after_a_start(tmp_path: Path) -> None:
    path, guest = tmp_path / "observations.db", ResourceId("g")
    store = ObservationStore(path)
    assert (store.assigned(), store.snapshot().assigned) == (None, "")
    store.assign({guest: 3})
    assert store.assigned() == Assigned({guest: 3}, confirmed=True)
    assert store.snapshot().assigned == assigned_digest({guest: 3})
    store.close()
    store = ObservationStore(path)
    assert store.assigned() == Assigned({guest: 3}, confirmed=False)
    assert store.snapshot().assigned == "", "no server has told this life"
    store.assign({guest: 3})
    assert store.snapshot().assigned == assigned_digest({guest: 3})
    store.close()


def test_the_digest_is_of_what_is_assigned_here(tmp_path: Path) -> None:
    store, guest = ObservationStore(tmp_path / "observations.db"), ResourceId("g")
    store.record(report("web"))
    store.assign({guest: 1})
    store.record(report("g", generation=1))
    assert store.digest() == digest({ResourceId("web"): ResourceState.UP, guest: ResourceState.UP})
    for mine in ({}, {guest: 3}):
        store.assign(mine)
        assert store.digest() == digest({ResourceId("web"): ResourceState.UP}), "what left is not counted"
    store.record(report("g", ResourceState.STARTING, generation=3))
    assert store.digest() == digest({ResourceId("web"): ResourceState.UP, guest: ResourceState.STARTING})
    fresh = store.digest()
    store.close()
    store = ObservationStore(tmp_path / "observations.db")
    assert store.digest() == fresh
    store.close()
