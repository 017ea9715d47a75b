"""A drill file is read whole or not at all; a problem names line, field, value and what would be accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat.drills.actions import duration_ms, duration_text
from homeostat.drills.language.catalogue import SHIPPED, ordered_drills, read_catalogue
from homeostat.drills.language.parser import drill_of, parse, record_of
from homeostat.drills.model import Drill, Suite
from homeostat.kernel.errors import BadInput, NotFound

GOOD = """\
drill: mine
title: My own
fault:
  injector: kill
  target: {service: web, choose: first}
monitors:
  - id: web
    kind: http
    layer: service
    target: {service: web}
    period: 20ms
checks:
  - kind: service_outage
    requirement: R1.11
    monitors: [web]
    limit: 5s
"""


def problems(text: str) -> list[str]:
    """Each as people see it."""
    read = parse(text, "mine.yaml")
    assert (read.found is None) == bool(read.problems)
    return [str(each) for each in read.problems]


def test_a_good_file_has_every_default_and_says_the_same_when_written_again() -> None:
    found = parse(GOOD, "mine.yaml").found
    assert isinstance(found, Drill)
    assert (found.monitors[0].deadline_ms, found.window.longest_ms) == (1_000, 40_000)
    assert drill_of(record_of(found)) == found
    assert record_of(found)["monitors"][0]["period"] == "20ms"


@pytest.mark.seed("order a drill file's errors name line and field")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("drill: mine", "drill: Mine!", "1: drill: 'Mine!' is not accepted;"),
        ("title: My own", "titel: My own", "2: titel: 'My own' is not accepted; there is no"),
        ("title: My own", "titel: My own", "1: title: it must be there"),
        ("injector: kill", "injector: burn", "4: fault.injector: 'burn' is not accepted; one of kill"),
        ("period: 20ms", "period: 20", "11: monitors.0.period: 20 is not accepted; a number"),
        ("period: 20ms", "period: 0s", "11: monitors.0.period: '0s' is not accepted; greater than 0"),
        ("layer: service", "layer: cloud", "9: monitors.0.layer: 'cloud' is not accepted; one of"),
        ("limit: 5s", "limit: 5s\n    colour: red", "17: checks.0.colour: 'red' is not accepted;"),
        ("monitors: [web]", "monitors: [wob]", "15: checks.0.monitors.0: 'wob' is not accepted;"),
        ("requirement: R1.11\n    ", "", "13: checks.0.requirement: it must be there"),
        ("choose: first", "host: n1", "5: fault.target: a mapping is not accepted;"),
        ("limit: 5s", "limit: 50s", "16: checks.0.limit: '50s' is not accepted; less than"),
        ("title: My own", "title: {a: *b}", "2: YAML: an alias (*) is not read"),
        ("title: My own", "drill: other", "2: YAML: drill is listed twice here"),
        ("  - id: web", "  - id: [", "9: YAML: "),
        ("target: {service: web}", "target: {url: 'http://[::1'}", "10: monitors.0.target.url: 'http://["),
        ("target: {service: web}", "target: {url: 'tcp://n1'}", "10: monitors.0.target.url: 'tcp://n1'"),
        ("target: {service: web}", "target: {url: 'http://n1:70000'}", "10: monitors.0.target.url: "),
    ],
)  # fmt: skip
def test_a_problem_is_one_line_with_its_place_and_its_remedy(old: str, new: str, said: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(each.removeprefix("mine.yaml:").startswith(said) for each in found), found


def test_the_example_of_the_documentation_is_a_good_drill() -> None:
    page = (Path(__file__).parents[2] / "docs" / "drills.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert problems(example) == []


def test_an_unknown_field_is_told_the_known_ones() -> None:
    found = problems(GOOD.replace("choose: first", "chose: first"))
    assert found == [
        "mine.yaml:5: fault.target.chose: 'first' is not accepted; "
        "there is no such field; known here: choose, host, service"
    ]


def test_every_problem_is_told_at_once_by_line() -> None:
    text = GOOD.replace("20ms", "often").replace("5s", "soon").replace("kind: http", "kind: ping")
    lines = [int(each.split(":")[1]) for each in problems(text)]
    assert lines == [8, 11, 16]


@pytest.mark.seed("order resolution is checked before the fault")
def test_a_period_that_could_never_decide_is_refused_where_it_stands() -> None:
    found = problems(GOOD.replace("20ms", "200ms"))
    assert found == [
        "mine.yaml:11: monitors.0.period: '200ms' is not accepted; at most 125ms: more cannot decide 5s"
    ]


def test_latency_needs_a_device_and_no_ports() -> None:
    network = "injector: network\n  hold: 5s\n  effect: latency\n  ports: [80]"
    assert problems(GOOD.replace("injector: kill", network)) == [
        "mine.yaml:3: fault.device: the device to slow down: latency cannot do without",
        "mine.yaml:7: fault.ports: a list is not accepted; none: only a cut knows ports",
    ]


def test_processes_are_not_expected_back_from_a_fault_that_ends_none() -> None:
    watch = "  - {id: p, kind: process, layer: process, target: {service: web, on: victim}}\nchecks:\n"
    check = "  - {kind: process_recovery, requirement: R0.5, monitor: p, limit: 30s}\n"
    text = GOOD.replace("checks:\n", watch + check)
    assert not problems(text)
    (said,) = problems(text.replace("injector: kill", "injector: freeze\n  hold: 5s"))
    assert "only after a fault that ends processes" in said


@pytest.mark.parametrize("on", ["", ", on: endpoint"])
def test_processes_are_watched_on_the_host_that_is_hit_and_the_file_says_so(on: str) -> None:
    watch = f"  - {{id: p, kind: process, layer: process, target: {{service: web{on}}}}}\nchecks:\n"
    assert problems(GOOD.replace("checks:\n", watch)) == [
        "mine.yaml:12: monitors.1.target: a mapping is not accepted; "
        "on: victim, too: processes are watched on the host that is hit"
    ]


@pytest.mark.parametrize("weight", ["step", "informative"])
def test_a_drill_that_could_only_pass_is_refused(weight: str) -> None:
    found = problems(GOOD.replace("limit: 5s", f"limit: 5s\n    weight: {weight}"))
    assert len(found) == 1
    assert "at least one that measures and is binding" in found[0]


def test_keys_are_words_and_dates_are_text() -> None:
    text = GOOD.replace("My own", "2026-11-21").replace(
        "target: {service: web}", "target: {service: web, on: victim}"
    )
    found = parse(text, "mine.yaml").found
    assert isinstance(found, Drill)
    assert (found.title, found.monitors[0].target.on) == ("2026-11-21", "victim")


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_drill_or_has_problems(text: str) -> None:
    read = parse(text, "x")
    assert (read.found is None) == bool(read.problems)


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.text(max_size=3))
def test_a_spoilt_file_never_breaks_the_reader(at: int, what: str) -> None:
    problems(GOOD[:at] + what + GOOD[at + 1 :])


def test_deep_nesting_is_a_problem_and_no_crash() -> None:
    assert "deep" in problems("drill: " + "[" * 5_000 + "]" * 5_000)[0]


@given(st.integers(1, 3_600_000))
def test_a_span_in_words_is_the_same_span(ms: int) -> None:
    assert duration_ms(duration_text(ms)) == ms


def test_every_shipped_file_is_good_and_its_name_is_its_id() -> None:
    for each in read_catalogue().items:
        assert each.file.name in (f"{each.found.id}.yaml", f"{each.found.id}.suite.yaml")
    lab = read_catalogue().suite("lab").found
    assert isinstance(lab, Suite)
    here, cloud = SHIPPED
    shipped = {
        each.found.id
        for each in read_catalogue().items
        if isinstance(each.found, Drill) and each.file.parent == here
    }
    assert set(lab.drills) == shipped
    assert len([*here.glob("*.yaml"), *cloud.glob("*.yaml")]) == len(read_catalogue().items)


@pytest.mark.seed("000 each test case is able to run independently, in sequence or shuffled")
def test_a_suite_has_an_order_and_a_shuffled_one_by_seed() -> None:
    lab = read_catalogue().suite("lab").found
    assert isinstance(lab, Suite)
    assert tuple(ordered_drills(lab)) == lab.drills
    assert ordered_drills(lab, 7) == ordered_drills(lab, 7)
    assert sorted(ordered_drills(lab, 7)) == sorted(lab.drills)
    assert len({tuple(ordered_drills(lab, seed)) for seed in range(20)}) > 1


@pytest.mark.seed("000 I1 a bare case number is refused with both candidates")
@pytest.mark.parametrize("bare", ["tc003", "opnfv.ha.tc003"])
def test_a_bare_number_names_every_candidate(bare: str) -> None:
    with pytest.raises(BadInput) as told:
        read_catalogue().drill(bare)
    assert "opnfv.ha.tc003.keystone_service_down" in str(told.value)
    assert "opnfv.ha.tc003.neutron-server_service_down" in str(told.value)


@pytest.mark.seed("000 I2 a name with a slash is an alias and never a file name")
@pytest.mark.seed("000 I3 all generations of names are known")
@pytest.mark.parametrize(
    ("alias", "drill"),
    [
        ("opnfv.ha.tc010.disk_I/O_block", "controller-disk-io-overload"),
        ("opnfv.ha.tc007.disk_I/O_overload", "controller-disk-io-overload"),
        ("opnfv.ha.tc009.cpu_overload", "controller-cpu-overload"),
        ("yardstick.ha.haproxy", "api-balancer-down"),
    ],
)
def test_other_names_of_our_drills(alias: str, drill: str) -> None:
    assert read_catalogue().drill(alias).found.id == drill


def test_a_case_without_a_file_says_so() -> None:
    with pytest.raises(NotFound, match="rabbitmq-down has no drill file here"):
        read_catalogue().drill("yardstick.ha.rabbitmq")


def test_a_folder_of_ones_own_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert read_catalogue(tmp_path).drill("mine").file == tmp_path / "mine.yaml"
    (tmp_path / "too.yaml").write_text(GOOD.replace("drill: mine", "drill: service-down"))
    with pytest.raises(BadInput, match="another name"):
        read_catalogue(tmp_path)
