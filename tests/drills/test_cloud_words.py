"""Operations of kind cloud in a drill file: what may stand there, and in which order."""

from __future__ import annotations

import pytest

from homeostat.drills.language.parser import drill_of, parse, record_of
from homeostat.drills.model import Drill, Operation

GOOD = """\
drill: mine
title: My own
fault:
  injector: kill
  target: {service: nova-api, choose: first}
monitors:
  - {id: web, kind: http, layer: service, target: {service: nova-api}}
checks:
  - {kind: operations, requirement: R1.8}
cleanup:
  - kind: delete_test_objects
operations:
  before:
    - {id: image, kind: cloud, does: create, what: image, deadline: 120s}
    - {id: image-active, kind: cloud, does: active, what: image}
    - {id: flavor, kind: cloud, does: create, what: flavor}
  during:
    - {id: canary, kind: cloud, does: create, what: server, deadline: 30s}
    - {id: canary-gone, kind: cloud, does: delete, what: server}
    - {id: ask, target: {service: nova-api}, deadline: 5s}
  after:
    - {id: server, kind: cloud, does: create, what: server}
    - {id: server-active, kind: cloud, does: active, what: server, deadline: 300s}
    - {id: server-delete, kind: cloud, does: delete, what: server}
    - {id: server-gone, kind: cloud, does: gone, what: server}
    - {id: volume, kind: cloud, does: create, what: volume, optional: true}
    - {id: volume-active, kind: cloud, does: active, what: volume, optional: true}
"""
AFTER = "operations.after"


def problems(text: str) -> list[str]:
    """Each without the line."""
    read = parse(text, "mine.yaml")
    assert (read.found is None) == bool(read.problems)
    return [str(each).split(": ", 1)[1] for each in read.problems]


def test_the_good_one_is_read_and_says_the_same_when_written_again() -> None:
    found = parse(GOOD, "mine.yaml").found
    assert isinstance(found, Drill), problems(GOOD)
    assert drill_of(record_of(found)) == found
    assert [each.id for each in found.operations.before] == ["image", "image-active", "flavor"]
    asks = found.operations.during[2]
    assert isinstance(asks, Operation) and asks.kind == "http"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: cloud, does: create, what: volume", "kind: clod, does: create, what: volume",
         f"{AFTER}.4.kind: 'clod' is not accepted; one of http, cloud"),
        ("what: volume, optional: true}\n    - {id: volume-active", "what: cloud}\n    - {id: volume-active",
         f"{AFTER}.4.what: 'cloud' is not accepted; one of image, flavor, server, network, router, volume"),
        ("id: server-gone, kind: cloud", "id: server-gone, kind: cloud, name: x",
         f"{AFTER}.3.name: 'x' is not accepted; there is no such field; known here: deadline, does, id,"),
        ("    - {id: flavor, kind: cloud, does: create, what: flavor}\n", "",
         f"{AFTER}.0.what: 'server' is not accepted; create of flavor before it"),
        ("    - {id: server-delete, kind: cloud, does: delete, what: server}\n", "",
         f"{AFTER}.2.does: 'gone' is not accepted; delete of server before it"),
        ("does: create, what: volume, optional: true", "does: list, what: volume",
         f"{AFTER}.5.does: 'active' is not accepted; create of volume before it"),
        ("does: active, what: volume, optional: true", "does: active, what: volume",
         f"{AFTER}.5.optional: true: the volume that it is about is optional itself"),
        ("what: image, deadline: 120s", "what: image, optional: true",
         "operations.before.0.optional: True is not accepted; false: nothing that is set up can be left out"),
        ("does: create, what: volume", "does: create, what: server",
         f"{AFTER}.4.what: 'server' is not accepted; one server in a drill: its name is of the run"),
        ("does: active, what: image", "does: active, what: flavor",
         "operations.before.1.what: 'flavor' is not accepted; another thing: a flavor has no status"),
        ("does: delete, what: server}\n    - {id: ask", "does: delete, what: image}\n    - {id: ask",
         "operations.during.1.does: 'delete' is not accepted; create of image before it, in the same round"),
        ("delete_test_objects", "restart_if_down",
         "cleanup: a list is not accepted; kind: delete_test_objects, for what the operations create"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_where_it_stands(old: str, new: str, said: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(each.startswith(said) for each in found), found


def test_what_is_done_while_a_fault_is_held_has_its_time_and_its_own_size() -> None:
    steps = "".join(
        f"    - {{id: flavor-{does}, kind: cloud, does: {does}, what: flavor, deadline: 20s{more}}}\n"
        for does, more in (("create", ", ram_mib: 100"), ("there", ""), ("delete", ""))
    )
    before, _, _ = GOOD.partition("operations:")
    head = before.replace("injector: kill", "injector: freeze\n  hold: 60s")
    good = head + "window: {longest: 90s}\noperations:\n  while_held:\n" + steps
    assert problems(good) == []
    for old, new, said in (
        ("hold: 60s", "hold: 59s", "fault.hold: '59s' is not accepted; at least 1m: the deadlines"),
        ("freeze\n  hold: 60s", "kill", "operations.while_held: a list is not accepted; nothing: only of"),
        ("does: create, what: flavor", "does: list, what: flavor",
         "operations.while_held.0.ram_mib: 100 is not accepted; only where a flavor is created"),
        ("does: create, what: flavor", "does: active, what: image",
         "operations.while_held.0.ram_mib: 100 is not accepted; only where a flavor is created"),
        ("id: flavor-there", "id: flavor-create", "operations.while_held.1.id: 'flavor-create' is not"),
        ("deadline: 20s, ram_mib: 100", "optional: true",
         "operations.while_held.0.optional: True is not accepted; false: an extension"),
        ("does: delete, what: flavor", "does: there, what: image",
         "operations.while_held.2.does: 'there' is not accepted; create of image before it"),
    ):  # fmt: skip
        assert old in good, old
        found = problems(good.replace(old, new))
        assert any(each.startswith(said) for each in found), (old, found)


@pytest.mark.seed("000 I10 zero operations are said and never passed silently")
def test_operations_that_are_all_optional_decide_nothing() -> None:
    text = (
        GOOD.split("operations:")[0]
        + """operations:
  after:
    - {id: volume, kind: cloud, does: create, what: volume, optional: true}
"""
    )
    assert problems(text) == [
        "checks: a list is not accepted; "
        "at least one that measures and is binding: proofs alone would pass for nothing"
    ]
