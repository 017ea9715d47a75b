"""The patterns of names stand at the noun; shipped code that cannot import them has the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.nouns import HOST_ID, HOST_NAME, OWNER, RESOURCE_ID, RUN_ID
from homeostat.drills.shipped.keeper import machine as folder
from homeostat.fleet.settings import HostSettings
from homeostat.kernel.config import validate
from homeostat.kernel.errors import BadInput
from homeostat.node.settings import NodeSettings

TEXTS = st.one_of(st.text(max_size=70), st.from_regex(r"[A-Za-z0-9._ä/ -]{0,70}\n?", fullmatch=True))


@given(TEXTS)
def test_the_undo_keeper_takes_the_same_runs(text: str) -> None:
    wire = re.compile(RUN_ID.removeprefix("^").removesuffix("$"))
    assert (folder._FAULT.match(text) is not None) == (wire.fullmatch(text) is not None)


@pytest.mark.parametrize("host", ["n1", "Rack-7_b", "n.1", "-n", "", "n" * 64, "n\n"])
def test_a_host_of_node_yaml_is_a_host_of_the_server(host: str) -> None:
    def accepted(model: type[NodeSettings] | type[HostSettings], **more: object) -> bool:
        try:
            validate(model, {"host": host, **more})
        except BadInput:
            return False
        return True

    as_node = accepted(NodeSettings, state_dir="/tmp", nats={"user": "n"})
    assert accepted(HostSettings, address="10.0.0.1") == as_node
    assert as_node == (re.fullmatch(HOST_ID, host) is not None and not host.endswith("\n"))


@given(st.from_regex(HOST_ID, fullmatch=True))
def test_an_id_is_a_name_of_a_host(host: str) -> None:
    assert re.match(HOST_NAME, host)


@given(st.from_regex(RESOURCE_ID, fullmatch=True))
def test_whatever_names_a_resource_may_name_an_owner(name: str) -> None:
    assert re.match(OWNER, name)
