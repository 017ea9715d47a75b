"""Whose a fault is: the run within whose numbers it was raised, about what the run may break."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HostId, ResourceId
from homeostat.drills.leader.runs import FaultTagIndex, RunSpan
from homeostat.kernel.journal import EventIndex, Seq

HOSTS = ("n1", "n2")
RESOURCES = ("web", "db")


def span(run: str, began: int, ended: int | None = None, **more: object) -> RunSpan:
    plain = RunSpan(
        run, "infrastructure", (HostId("n1"),), (), Seq(began), None if ended is None else Seq(ended)
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.seed("order drills are tagged faults: by host or resource, between its beginning and its end")
def test_a_fault_is_the_drill_s_from_its_beginning_to_its_end() -> None:
    tags = FaultTagIndex([span("r-1", 10, 20)])
    found = {seq: tags.run_of("resource/x", "n1", "blue", Seq(seq)) for seq in (9, 10, 11, 20, 21)}
    assert found == {9: "", 10: "", 11: "r-1", 20: "r-1", 21: ""}
    assert tags.run_of("resource/x", "n1", "blue", EventIndex(0)) == "", "it is over"
    assert tags.run_of("resource/x", "n2", "blue", Seq(15)) == ""
    assert tags.run_of("node/n1", "n1", "infrastructure", Seq(15)) == "r-1"
    assert tags.run_of("fleet", "", "infrastructure", Seq(15)) == ""


def test_a_running_drill_has_what_is_raised_now_until_it_ends() -> None:
    tags = FaultTagIndex()
    tags.add(span("r-1", 10, hosts=(), resources=(ResourceId("web"),)))
    assert tags.run_of("resource/web", "n3", "blue", EventIndex(4)) == "r-1"
    assert tags.run_of("resource/db", "n3", "blue", EventIndex(4)) == ""
    tags.end("r-1", Seq(30))
    assert tags.run_of("resource/web", "n3", "blue", EventIndex(4)) == ""
    assert tags.run_of("resource/web", "n3", "blue", Seq(30)) == "r-1"
    tags.end("r-1", Seq(40))
    assert tags.run_of("resource/web", "n3", "blue", Seq(31)) == "", "an end stays"


def test_a_project_s_drill_has_only_faults_of_that_project() -> None:
    tags = FaultTagIndex([span("r-1", 10, owner="blue")])
    assert tags.run_of("resource/x", "n1", "blue", Seq(11)) == "r-1"
    assert tags.run_of("resource/y", "n1", "green", Seq(11)) == ""
    assert tags.run_of("node/n1", "n1", "infrastructure", Seq(11)) == ""


_spans = st.lists(
    st.builds(
        lambda began, length, hosts, resources, owner: span(
            f"r-{began}",
            began,
            None if length is None else began + length,
            hosts=tuple(map(HostId, sorted(hosts))),
            resources=tuple(map(ResourceId, sorted(resources))),
            owner=owner,
        ),
        st.integers(0, 40),
        st.none() | st.integers(1, 20),
        st.sets(st.sampled_from(HOSTS)),
        st.sets(st.sampled_from(RESOURCES)),
        st.sampled_from(["infrastructure", "blue"]),
    ),
    unique_by=lambda each: each.began,
    max_size=12,
)


@given(
    _spans,
    st.sampled_from(RESOURCES),
    st.sampled_from(["", *HOSTS]),
    st.sampled_from(["blue", "green"]),
    st.none() | st.integers(0, 70),
)
def test_the_index_says_what_a_look_at_every_run_would(
    spans: list[RunSpan], resource: str, host: str, owner: str, at: int | None
) -> None:
    raised = EventIndex(0) if at is None else Seq(at)
    fitting = [
        each
        for each in spans
        if (resource in each.resources or (host and host in each.hosts))
        and each.owner in ("infrastructure", owner)
        and (each.ended is None if at is None else each.began < at <= (each.ended or 10**9))
    ]
    expected = max(fitting, key=lambda each: each.began).run if fitting else ""
    assert FaultTagIndex(spans).run_of(f"resource/{resource}", host, owner, raised) == expected
    grown = FaultTagIndex()  # as a server lives through it
    for each in sorted(spans, key=lambda each: each.began):
        grown.add(replace(each, ended=None))
    for each in spans:
        if each.ended is not None:
            grown.end(each.run, each.ended)
    assert grown.run_of(f"resource/{resource}", host, owner, raised) == expected
