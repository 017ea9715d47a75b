"""Meta-data of agents: what real ones print is read, the rest refused; low timeouts are warned of."""

from __future__ import annotations

import contextlib
import functools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import BadInput
from homeostat.resources.node.main import warnings_of
from homeostat.resources.ocf import META_DATA_BYTES_MAX, parse_duration, parse_meta_data
from homeostat.resources.settings import ResourceSettings, shipped_agents

HEAD = b'<?xml version="1.0"?><resource-agent name="x" version="1.2">'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20s", 20),
        ("20", 20),
        ("20000ms", 20),
        ("1min", 60),
        ("2h", 7200),
        (" 5 S ", 5),
        ("0.5s", 0.5),
        ("0", 0),
    ],
)
def test_durations_as_agents_write_them(text: str, expected: float) -> None:
    assert parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "-1", "20 fortnights", "1s2", "nan", "inf", "٣s", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)


@functools.cache
def shipped() -> bytes:
    agent = str(shipped_agents() / "homeostat" / "process")
    return subprocess.run([agent, "meta-data"], capture_output=True, check=True).stdout


def test_the_shipped_agent_describes_itself() -> None:
    read = parse_meta_data(shipped())
    assert (read.name, read.version) == ("process", "1.0")
    timeouts = {action.name: action.timeout_s for action in read.actions}
    assert timeouts == {"start": 20, "stop": 20, "monitor": 10, "meta-data": 5, "validate-all": 5}
    assert [p.name for p in read.parameters if p.required] == ["command"]
    assert {p.type for p in read.parameters} == {"string", "integer"}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "must be XML"),
        (b"<a>", "must be XML"),
        (b"<html/>", "root element must be resource-agent"),
        (b'<?xml version="1.0" encoding="no-such"?><resource-agent/>', "must be XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><resource-agent/>', "without entities"),
        (b"x" * (META_DATA_BYTES_MAX + 1), "at most"),
        (HEAD + b'<actions><action name="stop" timeout="soon"/></actions></resource-agent>', "as in 20s"),
    ],
)
def test_what_is_no_metadata_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parse_meta_data(document)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(document: bytes) -> None:
    for body in (document, HEAD + document, HEAD + document + b"</resource-agent>"):
        with contextlib.suppress(BadInput):
            parse_meta_data(body)


@given(st.data())
def test_a_damaged_real_document_is_read_or_refused(data: st.DataObject) -> None:
    whole = shipped()
    at = data.draw(st.integers(0, len(whole)))
    until = data.draw(st.integers(at, min(len(whole), at + 40)))
    with contextlib.suppress(BadInput):
        parse_meta_data(whole[:at] + data.draw(st.binary(max_size=8)) + whole[until:])


def test_advice_names_what_is_below_the_advertised_timeout_and_what_is_missing() -> None:
    resource = ResourceSettings.model_validate(
        {
            "id": "web",
            "agent": "ocf:homeostat:process",
            "owner": "platform",
            "operations": {"stop": {"timeout_s": 12}},
        }
    )
    timeout, missing = warnings_of(resource, parse_meta_data(shipped()))
    assert timeout.startswith("resources.web.operations.stop.timeout_s: 12 is less than the 20 s")
    assert missing.startswith("resources.web.parameters.command: missing")


def test_no_advice_for_what_is_configured_well() -> None:
    resource = ResourceSettings.model_validate(
        {"id": "w", "agent": "ocf:homeostat:process", "owner": "p", "parameters": {"command": "sleep 1"}}
    )
    assert warnings_of(resource, parse_meta_data(shipped())) == []
