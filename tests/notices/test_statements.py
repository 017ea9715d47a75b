"""What is written again and again is the same statement each time: the appender remembers it by identity."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homeostat.components import retention_rules
from homeostat.contracts.nouns import Owner
from homeostat.kernel.journal import RowChange
from homeostat.notices import store
from homeostat.notices.model import Silence
from homeostat.server.retention import EVENTS
from notices_parts import subscription

SILENCE = Silence("s-1", Owner("shop"), "why", "admin", 1, 1, 2, kind="host_down")


@pytest.mark.parametrize(
    "made",
    [
        lambda: store.note_progress([("k", 1, 1)]),
        lambda: store.insert_subscription(subscription()),
        lambda: store.replace_subscription(subscription()),
        lambda: store.remove_subscription("s"),
        lambda: store.insert_silence(SILENCE),
        lambda: store.end_silence("s-1", 1, "admin"),
        lambda: store.queue_again([]),
        *(
            lambda kind=kind: kind.removal(["k"])
            for kind in (EVENTS, *(rows for rules in retention_rules() for rows in rules.prunable))
        ),
    ],
)
def test_a_statement_is_made_once(made: Callable[[], RowChange]) -> None:
    assert made().statement is made().statement
