"""Requests of Blazar's API: any JSON becomes a record of ours, or is refused in Blazar's form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from blazar_parts import host_body, instance_body, lease_body
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.access import Caller, Role
from homeostat.leases.blazar_answers import date
from homeostat.leases.blazar_refusals import BlazarError, minute
from homeostat.leases.blazar_requests import (
    read_flag,
    read_lease,
    read_new_host,
    read_private,
    read_properties,
    read_update,
)
from homeostat.leases.booking import LeaseRequest
from homeostat.leases.lease_update import LeaseUpdate
from homeostat.leases.model import LeaseId, Reservation, ReservationId, ReservationStatus, ResourceType

ANNA = Caller("anna", Role.OPERATOR, "alpha")
ALL = tuple(ResourceType)
HOST = Reservation(
    ReservationId("r1"), LeaseId("l"), ResourceType.HOST, ReservationStatus.PENDING, minimum=1, maximum=2
)
PART = Reservation(
    ReservationId("r2"),
    LeaseId("l"),
    ResourceType.INSTANCE,
    ReservationStatus.PENDING,
    minimum=1,
    maximum=1,
    amount=1,
    vcpus=1,
    memory_mb=512,
    affinity=True,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


def broken(whole: dict[str, object]) -> st.SearchStrategy[dict[str, Any]]:
    """A body in which some values are anything at all, and some are missing."""
    fields = {name: st.just(value) | JSON for name, value in whole.items()}
    return st.fixed_dictionaries({}, optional=fields)


RESERVATIONS = st.lists(broken(host_body(before_end="default")) | broken(instance_body()), max_size=2)


@given(broken(lease_body()), RESERVATIONS)
def test_any_lease_is_read_or_refused(body: dict[str, Any], reservations: list[dict[str, Any]]) -> None:
    for each in (body, body | {"reservations": reservations}):
        try:
            found = read_lease(each, ANNA, ALL)
        except BlazarError as error:
            assert 400 <= error.status <= 500 and len(error.message.splitlines()) == 1
            assert error.body["error_message"] == error.message
        else:
            assert isinstance(found, LeaseRequest)
            assert (found.project, found.user) == ("alpha", "anna")
            assert all(1 <= one.minimum <= one.maximum < 2**31 for one in found.reservations)


CHANGES = broken(host_body(id="r1")) | broken(instance_body(id="r2"))


@given(broken({"name": "x", "start_date": "now", "end_date": "now", "before_end_date": None}), CHANGES)
def test_any_change_is_read_or_refused(body: dict[str, Any], change: dict[str, Any]) -> None:
    for each in (body, body | {"reservations": [change]}):
        try:
            found = read_update(each, (HOST, PART), 1_790_000_000 * 10**9)
        except BlazarError as error:
            assert 400 <= error.status <= 500
        else:
            assert isinstance(found, LeaseUpdate)


@pytest.mark.parametrize("name", ["a\nb", "x" * 5000, "\ud800"])
def test_a_refusal_is_one_short_line_whatever_was_sent(name: str) -> None:
    with pytest.raises(BlazarError) as refused:
        read_lease({name: 1}, ANNA, ALL)
    message = refused.value.message
    assert len(message) <= 2000 and len(message.splitlines()) == 1
    assert message.encode()


@given(st.dictionaries(st.text(max_size=70), JSON, max_size=3), JSON)
def test_any_host_and_property_is_read_or_refused(body: dict[str, Any], value: Any) -> None:
    for read in (read_new_host, read_properties, read_private):
        for each in (body, body | {"name": value}, {"private": value}):
            try:
                read(each)
            except BlazarError as error:
                assert 400 <= error.status <= 500


def changed(**fields: object) -> LeaseUpdate:
    return read_update({"reservations": [fields]}, (HOST, PART), 0)


def test_only_what_is_given_changes() -> None:
    assert changed(id="r1").reservations[HOST.id].maximum is None
    assert changed(id="r1", max=3).reservations[HOST.id].maximum == 3
    assert changed(id="r1", max=3).reservations[HOST.id].minimum == 1
    part = changed(id="r2", amount=4, affinity=True).reservations[PART.id]
    assert (part.amount, part.minimum, part.maximum, part.vcpus) == (4, 4, 4, None)
    assert read_update({}, (HOST,), 0) == LeaseUpdate()


def test_what_ends_now_ends_within_a_second_and_not_in_the_past() -> None:
    now_ns = 1_790_000_000_123_456_789
    end_ns = read_update({"end_date": "now"}, (), now_ns).end_ns
    assert end_ns is not None and 0 < end_ns - now_ns <= 10**9


@pytest.mark.parametrize(
    ("given_affinity", "expected"),
    [
        ("None", None),
        (None, None),
        ("True", True),
        ("false", False),
        (True, True),
        (False, False),
        ("1", True),
    ],
)
def test_affinity_is_as_blazar_reads_it(given_affinity: object, expected: bool | None) -> None:
    body = lease_body(reservations=[instance_body(affinity=given_affinity)])
    (found,) = read_lease(body, ANNA, ALL).reservations
    assert found.affinity is expected


def test_numbers_may_be_text_as_the_client_sends_them() -> None:
    body = lease_body(reservations=[host_body(min="1", max="2"), instance_body(amount="3", vcpus="2")])
    host, part = read_lease(body, ANNA, ALL).reservations
    assert (host.minimum, host.maximum) == (1, 2)
    assert (part.amount, part.minimum, part.maximum, part.vcpus) == (3, 3, 3, 2)


def test_a_type_that_is_switched_off_is_refused() -> None:
    with pytest.raises(BlazarError, match=r"virtual:instance resource type is not supported.*physical:host"):
        read_lease(lease_body(reservations=[instance_body()]), ANNA, (ResourceType.HOST,))


@given(st.integers(0, 120_000_000))
def test_dates_go_out_as_they_came_in(minutes: int) -> None:
    whole = datetime.fromtimestamp(minutes * 60, UTC)
    text = whole.strftime("%Y-%m-%d %H:%M")
    body = lease_body(start_date=text, end_date=text)
    found = read_lease(body, ANNA, ALL)
    assert found.start_ns == found.end_ns
    assert date(found.end_ns) == whole.strftime("%Y-%m-%dT%H:%M:%S.%f")
    assert minute(found.end_ns) == text
    later = whole + timedelta(minutes=1)
    assert minute(found.end_ns + 1) == later.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(("text", "expected"), [("True", True), ("False", False), ("1", True), ("no", False)])
def test_a_flag_that_says_no_means_no(text: str, expected: bool) -> None:
    """Blazar takes the text False for true."""
    assert read_flag("detail", text) is expected
