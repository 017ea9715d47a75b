"""What the cloud consists of: addresses, CPU sets, programs and their command lines. Pure, so tables."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import BadInput
from testbed.plan import CONTROLLERS, NODE_1, NODES, Node, Plan, Secrets, cpu_sets, node_named
from testbed.services import AFTER_KEYSTONE, APIS, VENV, profiles, programs

PLAN = Plan(Secrets("secret", "k" * 32))
BY_NAME = {each.name: each for each in NODES}


def test_nobody_has_the_address_of_another() -> None:
    addresses = [PLAN.vip, PLAN.host_address, *(PLAN.address(each) for each in NODES)]
    assert len(set(addresses)) == len(addresses)
    assert {address.rpartition(".")[0] for address in addresses} == {"10.77.0"}


def test_no_two_apis_want_one_port_or_name() -> None:
    for of in ("port", "name", "kind", "ini"):
        assert len({getattr(each, of) for each in APIS}) == len(APIS)


@pytest.mark.parametrize(
    ("field", "value"),
    [("database_on", "ctl2"), ("vip_on", "infra"), ("network", "10.77"), ("network", "10.77.999")],
)
def test_a_wrong_wish_is_refused_with_its_name(field: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"{field}: '{value}'"):
        Plan(PLAN.secrets, **{field: value})  # type: ignore[arg-type]


def test_an_unknown_node_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadInput, match="infra, ctl1, ctl2, cmp1"):
        node_named("ctl3")


@given(st.lists(st.integers(0, 255), min_size=1, unique=True))
def test_a_load_on_node_1_takes_no_cpu_from_the_others_where_there_are_two(cpus: list[int]) -> None:
    sets = cpu_sets(cpus)
    assert set(sets) == set(BY_NAME)
    assert all(mine and set(mine) <= set(cpus) for mine in sets.values())
    others = {cpu for name, mine in sets.items() if name != NODE_1.name for cpu in mine}
    if len(cpus) > 1:
        assert others.isdisjoint(sets[NODE_1.name])
    else:
        assert others == set(cpus)


def _names(plan: Plan, node: str) -> list[str]:
    return [each.name for each in programs(plan, BY_NAME[node])]


def test_both_controllers_run_the_same_and_all_apis() -> None:
    assert _names(PLAN, "ctl1") == _names(PLAN, "ctl2")
    assert {each.name for each in APIS} <= set(_names(PLAN, "ctl1"))
    assert {"haproxy", "keepalived", "heat-engine"} <= set(_names(PLAN, "ctl1"))


def test_the_database_is_on_one_node_only_and_may_be_on_node_1() -> None:
    assert [name for name in BY_NAME if "mariadb" in _names(PLAN, name)] == ["infra"]
    moved = Plan(PLAN.secrets, database_on="ctl1")
    assert [name for name in BY_NAME if "mariadb" in _names(moved, name)] == ["ctl1"]
    assert moved.database_address == moved.address(NODE_1)
    assert moved.variant != PLAN.variant


def _running_as(node: Node) -> dict[str, str]:
    """The command line that a program has once it runs: the interpreter of its first line is in front."""
    lines = {}
    for each in programs(PLAN, node):
        command = each.command.removeprefix(f"{AFTER_KEYSTONE} ")
        script = command.startswith(f"{VENV}/bin/") and not command.startswith(f"{VENV}/bin/python")
        lines[each.name] = f"{VENV}/bin/python3 {command}" if script else command
    return lines


def test_a_profile_matches_its_own_service_and_no_other() -> None:
    lines = _running_as(CONTROLLERS[0])
    for agent in ("nova-conductor", "heat-engine"):
        lines[f"{agent} (its worker)"] = f"{agent}: ServiceWrapper worker(0)"
        lines[f"{agent} (its master)"] = f"{agent}: master process [{VENV}/bin/{agent} --config-file a.conf]"
    lines["neutron-rpc-server (its worker)"] = f"neutron-server: rpc worker ({VENV}/bin/python3 ... a.conf)"
    for name, pattern in profiles().items():
        matched = {line for line, text in lines.items() if re.fullmatch(pattern, text)}
        expected = {line for line in lines if line.split(" (")[0] == name}
        assert matched == expected, name


def test_no_profile_matches_a_program_that_still_waits_for_keystone() -> None:
    waiting = [f"/bin/bash {each.command}" for each in programs(PLAN, NODE_1)]
    for pattern, text in itertools.product(profiles().values(), waiting):
        if AFTER_KEYSTONE in text:
            assert not re.fullmatch(pattern, text)
