"""The shipped cases against what the document asks: every numbered statement is answered, and by what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from homeostat.drills.actions import KillFault
from homeostat.drills.language.catalogue import CASES, DrillCatalogue, read_catalogue
from homeostat.drills.language.parser import parse
from homeostat.drills.model import Drill, Monitor, ProcessRecovery, ServiceOutage, Suite, Weight
from homeostat.drills.planning.preparation import check_fit
from homeostat.drills.site import read_site
from homeostat.kernel.errors import BadInput

PAGE = Path(__file__).parents[2] / "docs" / "openstack.md"
EIGHT = (
    "nova-api-down",
    "neutron-server-down",
    "keystone-down",
    "glance-api-down",
    "cinder-api-down",
    "controller-cpu-overload",
    "controller-disk-io-overload",
    "api-balancer-down",
)
STATEMENTS = {"every drill": 10, **dict(zip(EIGHT, (12, 9, 8, 9, 8, 6, 9, 9), strict=True))}
"""How many each case of the document has."""
OF_EVERY_RUN = {"verdict", "undo", "site", "references"}
"""Answered by every run, whatever its file says."""


@cache
def shipped() -> DrillCatalogue:
    """Read once."""
    return read_catalogue()


def drill(name: str) -> Drill:
    found = shipped().drill(name).found
    assert isinstance(found, Drill)
    return found


def answered() -> dict[str, dict[str, list[str]]]:
    """The tables of the page: by drill, which statement is answered by what."""
    tables: dict[str, dict[str, list[str]]] = {}
    name = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("### "):
            name = line.removeprefix("### ")
        elif re.match(r"\| R\d", line):
            number, _, by = (each.strip() for each in line.strip("|").split("|"))
            tables.setdefault(name, {})[number] = [each.strip() for each in by.split(",")]
    return tables


def parts(found: Drill) -> Mapping[str, set[str]]:
    """What stands in a file, by the words of the page."""
    return {
        "precondition": {each.kind for each in found.preconditions},
        "monitor": {each.id for each in found.monitors},
        "fault": {found.fault.injector},
        "before": {each.id for each in found.operations.before},
        "during": {each.id for each in found.operations.during},
        "while_held": {each.id for each in found.operations.while_held},
        "after": {each.id for each in found.operations.after},
        "check": {each.kind for each in found.checks},
        "cleanup": {each.kind for each in found.cleanup},
    }


@pytest.mark.seed("000 R0.1-R8.9 every statement of the document is answered by a row, a phase or a clean-up")
def test_every_statement_is_answered_by_something_that_is_there() -> None:
    tables = answered()
    assert {name: len(rows) for name, rows in tables.items()} == STATEMENTS
    for number, name in enumerate(STATEMENTS):
        assert list(tables[name]) == [f"R{number}.{at}" for at in range(1, STATEMENTS[name] + 1)]
        for said in (each for rows in tables[name].values() for each in rows):
            kind, _, what = said.partition(" ")
            if said in OF_EVERY_RUN:
                continue
            named = EIGHT if name == "every drill" else (name,)
            assert all(what.split(" ")[0] in parts(drill(each))[kind] for each in named), (name, said)


@pytest.mark.parametrize("name", [*EIGHT, "api-balancer-down-standby", "controller-down"])
def test_every_row_carries_a_statement_that_there_is(name: str) -> None:
    found, known = drill(name), {number for rows in answered().values() for number in rows}
    numbers = {each.requirement for each in (*found.preconditions, *found.checks)}
    assert numbers <= known
    text = shipped().drill(name).file.read_text()
    assert set(re.findall(r"\bR\d+\.\d+\b", text)) <= known
    if name in EIGHT:
        own = f"R{EIGHT.index(name) + 1}."
        assert {each for each in numbers if not each.startswith("R0.")} and all(
            each.startswith((own, "R0.")) for each in numbers
        )
        assert {each for each in answered()[name]} >= {each for each in numbers if each.startswith(own)}


@pytest.mark.seed("000 each test case is able to run independently, in the order of the document")
def test_the_suites_are_the_eight_and_the_variants() -> None:
    suites = {}
    for name in ("opnfv-ha", "opnfv-ha-variants"):
        found = shipped().suite(name).found
        assert isinstance(found, Suite)
        suites[name] = found.drills
    assert suites == {
        "opnfv-ha": EIGHT,
        "opnfv-ha-variants": ("api-balancer-down-standby", "controller-down"),
    }


@pytest.mark.seed("000 I3 all generations of names are known")
def test_each_of_the_eight_has_its_names_of_all_three_generations() -> None:
    for number, name in enumerate(EIGHT, start=1):
        assert any(f".tc{number:03}." in alias for alias in CASES[name])
        assert any(alias.startswith("yardstick.") for alias in CASES[name])
        for alias in CASES[name]:
            assert drill(alias).id == name


@pytest.mark.seed("000 I1 a bare case number is refused with both candidates")
@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_numbers_that_mean_two_cases_are_refused_with_both(number: int) -> None:
    with pytest.raises(BadInput) as told:
        shipped().drill(f"tc{number:03}")
    both = [alias for names in CASES.values() for alias in names if f".tc{number:03}." in alias]
    assert len(both) == 2 and all(alias in str(told.value) for alias in both)


def deciding(found: Drill) -> dict[str, ServiceOutage]:
    """Each monitor that decides, and its check."""
    return {
        name: each
        for each in found.checks
        if isinstance(each, ServiceOutage) and each.weight is Weight.BINDING
        for name in each.monitors
    }


@pytest.mark.seed("000 the service outage time is less than 5s")
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("nova-api-down", ["/v2.1/servers"]),
        ("neutron-server-down", ["/v2.0/routers"]),
        ("keystone-down", ["/v3/users"]),
        ("glance-api-down", ["/v2/images"]),
        ("cinder-api-down", ["/v3/{project_id}/volumes"]),
        (
            "controller-cpu-overload",
            ["/v1/{project_id}/stacks", "/v2.0/routers", "/v2/images", "/v3/{project_id}/volumes"],
        ),
        ("controller-disk-io-overload", ["/v2.1/flavors"]),
        ("api-balancer-down", ["/v2/images"]),
        ("api-balancer-down-standby", ["/v2/images"]),
    ],
)
def test_what_the_document_asks_decides_strictly_and_nothing_else(name: str, asked: list[str]) -> None:
    found = drill(name)
    checks = deciding(found)
    monitors: dict[str, Monitor] = {each.id: each for each in found.monitors}
    assert sorted(monitors[each].path for each in checks) == asked
    resolution = 0.4 if name == "controller-cpu-overload" else 0.2
    for each, check in checks.items():
        assert (check.limit_ms, check.operator, check.resolution) == (5_000, "<", resolution)
        assert monitors[each].token and monitors[each].target.on == "endpoint"


@pytest.mark.seed("000 the process outage time is less than 30s")
@pytest.mark.seed("000 I4 a limit of a step is advisory, binding only when asked")
@pytest.mark.seed("000 I22 the whole set is killed by SIGKILL")
@pytest.mark.parametrize("name", [*EIGHT[:5], "api-balancer-down", "api-balancer-down-standby"])
def test_processes_are_killed_and_expected_back(name: str) -> None:
    found = drill(name)
    assert isinstance(found.fault, KillFault)
    assert (found.fault.signal, found.fault.collateral) == ("SIGKILL", False)
    checks = [each for each in found.checks if isinstance(each, ProcessRecovery)]
    step = [(20_000, "<", Weight.STEP)] if name == "keystone-down" else []
    assert [(each.limit_ms, each.operator, each.weight) for each in checks] == [
        (30_000, "<", Weight.BINDING),
        *step,
    ]


@pytest.mark.seed("000 I26 every layer has a monitor, the command of the document beside it")
@pytest.mark.parametrize("name", EIGHT[:5])
def test_every_layer_is_watched(name: str) -> None:
    found = drill(name)
    layers = {each.layer.value for each in found.monitors}
    assert layers == {"process", "backend", "balancer", "service", "user"}
    (command,) = [each for each in found.monitors if each.kind == "cli"]
    what = next(iter(deciding(found)))
    assert command.command == f"{what.removesuffix('s')} list"


@pytest.mark.seed("000 I10 zero operations are said and never passed silently")
@pytest.mark.seed("000 I11 heat is in no precondition: optional; nova and keystone inform")
@pytest.mark.seed("000 I8 operations during the fault inform, those after it bind")
def test_what_the_document_leaves_open_is_treated_as_said() -> None:
    cinder = drill("cinder-api-down").operations.after
    assert cinder and all(getattr(each, "optional", False) for each in cinder)
    cpu = drill("controller-cpu-overload")
    assert {each.id for each in cpu.monitors if each.target.service == "heat-api" and each.optional} == {
        "stacks",
        "stack-command",
    }
    shown = [
        each.monitors
        for each in cpu.checks
        if isinstance(each, ServiceOutage) and each.weight is Weight.INFORMATIVE
    ]
    assert {"servers", "keystone"} <= {name for several in shown for name in several}
    nova = drill("nova-api-down").operations
    assert [each.id for each in nova.during] == [each.id for each in nova.after]


def test_the_page_has_a_site_and_a_permission_that_the_suites_fit(tmp_path: Path) -> None:
    text = PAGE.read_text()
    given = next(each for each in text.split("```yaml\n")[1:] if each.startswith("site:")).split("```")[0]
    path = tmp_path / "site.yaml"
    path.write_text(given)
    site = read_site(path)
    for name in (*EIGHT, "api-balancer-down-standby"):
        check_fit(site, drill(name), "ctl1")
    with pytest.raises(BadInput, match=r"hosts\.ctl1\.power"):
        check_fit(site, drill("controller-down"), "ctl1")
    permitted = yaml.safe_load(text.split("```json\n")[1].split("```")[0])
    assert permitted["enabled"] and "restart-nova-api" in permitted["programs"]


# ---- the share of a limit that bounds may be apart --------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "period", "said"),
    [
        ("5%", "125ms", None),
        ("5%", "126ms", "at most 125ms: more cannot decide 5s"),
        ("20%", "500ms", None),
        ("20%", "501ms", "at most 500ms"),
        ("0%", "20ms", "greater than 0"),
        ("60%", "20ms", "less than or equal to 0.5"),
        ("0.2", "20ms", "a share: 5%"),
    ],
)
def test_a_check_says_how_far_apart_its_bounds_may_be(resolution: str, period: str, said: str | None) -> None:
    text = f"""
drill: mine
title: My own
fault: {{injector: kill, target: {{service: web}}}}
monitors: [{{id: web, kind: http, layer: user, target: {{service: web}}, period: {period}}}]
checks: [{{kind: service_outage, requirement: R1, monitors: [web], limit: 5s, resolution: {resolution}}}]
"""
    problems = [str(each) for each in parse(text, "mine.yaml").problems]
    assert (not problems) if said is None else any(said in each for each in problems), problems
