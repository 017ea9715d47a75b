"""Monitors of an OpenStack in drill and site files: tokens, the client's own command, what is optional."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from played_run import Played

from homeostat.drills.language.parser import drill_of, parse, record_of
from homeostat.drills.model import Drill, baseline_samples
from homeostat.drills.planning.preparation import fit_to_site
from homeostat.drills.site import Site, read_site
from homeostat.drills.verdicts.evaluation import judge
from homeostat.drills.verdicts.judgement import RowReason
from homeostat.kernel.errors import BadInput
from homeostat.monitors.verdicts import Verdict

TEXT = """\
drill: mine
title: nova-api dies
fault: {injector: kill, target: {service: nova-api, choose: first}}
monitors:
  - {id: root, kind: http, layer: service, target: {service: nova-api}}
  - id: list
    kind: http
    layer: user
    target: {service: nova-api}
    path: "/v3/{project_id}/servers"
    token: true
  - id: cli
    kind: cli
    layer: user
    target: {service: nova-api}
    command: server list
    period: 1s
    deadline: 30s
  - {id: stacks, kind: http, layer: user, target: {service: heat-api}, token: true, optional: true}
checks:
  - {kind: service_outage, requirement: R1.11, monitors: [root, list], limit: 5s}
  - {kind: service_outage, requirement: R1.5, monitors: [cli], limit: 5s, weight: informative}
  - {kind: service_outage, requirement: R6.5, monitors: [list, stacks], limit: 5s}
"""


def drill(text: str = TEXT) -> Drill:
    """The drill in this text."""
    read = parse(text, "mine.yaml")
    assert isinstance(read.found, Drill), [str(each) for each in read.problems]
    return read.found


def problem(old: str, new: str) -> str:
    """The one thing that is wrong after this change."""
    assert TEXT.count(old) == 1
    (found,) = parse(TEXT.replace(old, new), "mine.yaml").problems
    return str(found)


@pytest.mark.seed("000 R1.5 two monitors: the process, and the list command of the user")
def test_the_list_command_of_the_document_is_a_monitor_of_its_own() -> None:
    found = drill()
    cli = found.monitors[2]
    assert (cli.kind, cli.command, cli.period_ms, cli.deadline_ms) == ("cli", "server list", 1_000, 30_000)
    assert drill_of(record_of(found)) == found
    assert [baseline_samples(found, each) for each in found.monitors] == [50, 50, 2, 50]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("server list", "server delete", "monitors.2.command: 'server delete' is not accepted; words of"),
        ("server list", "'--debug server list'", "monitors.2.command: '--debug server list'"),
        ("    command: server list\n", "", "monitors.2.command: for the kind cli, and only for it"),
        ("{service: nova-api}}\n  - id", "{service: nova-api}, command: image list}\n  - id",
         "monitors.0.command: 'image list' is not accepted; for the kind cli"),
        ("cli\n    layer: user", "cli\n    layer: service", "monitors.2.layer: 'service' is not accepted"),
        ("    command", "    token: true\n    command", "monitors.2.token: True is not accepted; only"),
        ('servers"\n    token: true', 'servers"', "monitors.1.path: '/v3/{project_id}/servers' is not"),
        ("5s, weight: informative", "5s", "checks.1.weight: informative for a monitor of kind cli"),
        ("weight: informative", "weight: step", "checks.1.weight: 'step' is not accepted; informative"),
        ("{service: heat-api}", "{url: 'http://h:1'}", "monitors.3.optional: True is not accepted; only"),
    ],
)  # fmt: skip
def test_what_a_monitor_of_a_cloud_cannot_be(old: str, new: str, said: str) -> None:
    assert f": {said}" in problem(old, new)


def site_file(folder: Path, **parts: object) -> Path:
    """A site with one service on one host."""
    nova = {"endpoint": "http://127.0.0.1:1", "hosts": {"ctl1": {"profile": "nova-api"}}}
    given = {
        "site": "cloud",
        "hosts": {"ctl1": {"config": "node.yaml"}},
        "services": {"nova-api": nova},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(given | parts))
    return folder / "site.yaml"


def test_the_files_of_a_cloud_are_beside_the_site_file(tmp_path: Path) -> None:
    cloud = {"name": "testbed", "clouds_file": "clouds.yaml", "client": "bin/openstack"}
    site = read_site(site_file(tmp_path, cloud=cloud, deviations=["nova's driver is fake"]))
    assert site.cloud is not None
    assert site.cloud.clouds_file == tmp_path / "clouds.yaml"
    assert site.cloud.client == str(tmp_path / "bin" / "openstack")
    assert site.deviations == ("nova's driver is fake",)
    on_path = read_site(site_file(tmp_path, cloud={"name": "testbed"}))
    assert on_path.cloud is not None
    assert (on_path.cloud.client, on_path.cloud.clouds_file) == ("openstack", None)


def a_site(folder: Path, **parts: object) -> Site:
    """The same, read."""
    return read_site(site_file(folder, **parts))


@pytest.mark.seed("000 I11 a service that the site does not have is left out, with the reason")
def test_what_is_optional_and_not_there_is_left_out_of_monitors_and_checks(tmp_path: Path) -> None:
    left, out = fit_to_site(a_site(tmp_path, cloud={"name": "testbed"}), drill())
    assert [each.id for each in left.monitors] == ["root", "list", "cli"]
    assert [each.monitors for each in left.checks if each.kind == "service_outage"] == [
        ("root", "list"),
        ("cli",),
        ("list",),
    ]
    assert [(each.monitor, each.why) for each in out] == [("stacks", "site cloud has no service heat-api")]
    assert drill_of(record_of(left)) == left


def test_a_drill_that_is_whole_at_a_site_stays_as_it_is(tmp_path: Path) -> None:
    hosts = {"ctl1": {"profile": "heat-api"}}
    nova = {"nova-api": {"hosts": {"ctl1": {"profile": "nova-api"}}}}
    site = a_site(tmp_path, cloud={"name": "testbed"}, services=nova | {"heat-api": {"hosts": hosts}})
    assert fit_to_site(site, drill()) == (drill(), ())


def test_without_a_cloud_or_its_client_only_what_is_optional_goes(tmp_path: Path) -> None:
    optional = drill(TEXT.replace("    command", "    optional: true\n    command"))
    _, out = fit_to_site(a_site(tmp_path), optional)
    assert [each.why for each in out if each.monitor == "cli"] == ["site cloud names no cloud"]
    cloud = a_site(tmp_path, cloud={"name": "testbed", "client": "no-such-client"})
    _, out = fit_to_site(cloud, optional, client_there=False)
    assert [each.why for each in out if each.monitor == "cli"] == ["there is no client no-such-client here"]
    assert "cli" not in [each.monitor for each in fit_to_site(cloud, drill(), client_there=False)[1]]


def test_a_check_that_would_decide_and_loses_all_its_monitors_is_refused(tmp_path: Path) -> None:
    """Another one that decides is left, but what this one must show would be passed unseen."""
    alone = "  - {kind: service_outage, requirement: R6.5, monitors: [stacks], limit: 5s}\n"
    site = a_site(tmp_path, cloud={"name": "testbed"})
    with pytest.raises(BadInput, match="stacks: site cloud has no service heat-api"):
        fit_to_site(site, drill(TEXT + alone))
    _, out = fit_to_site(site, drill(TEXT + alone.replace("5s}", "5s, weight: informative}")))
    assert [each.monitor for each in out] == ["stacks"]


@pytest.mark.seed("000 I11 a service that the site does not have is left out, with the reason")
def test_what_would_have_decided_and_is_left_out_has_a_row_that_does_not(tmp_path: Path) -> None:
    _, out = fit_to_site(a_site(tmp_path, cloud={"name": "testbed"}), drill())
    (stacks,) = out
    played = Played()
    evidence = replace(played.evidence, plan=replace(played.plan, left_out=out))
    (row,) = [each for each in judge(evidence).rows if each.why is RowReason.MONITOR_LEFT_OUT]
    assert (row.requirement, row.what, row.detail) == (*stacks.decided, "outage of stacks", stacks.why)
    assert (row.result, row.binding, judge(evidence).verdict) == (Verdict.INCONCLUSIVE, False, Verdict.PASS)


def test_a_drill_of_which_nothing_binding_is_left_is_refused(tmp_path: Path) -> None:
    only = drill(
        TEXT.replace("- {id: root,", "- {id: root, optional: true,").replace("[root, list]", "[root]")
    )
    services = {"web": {"hosts": {"ctl1": {"profile": "web"}}}}
    with pytest.raises(BadInput, match="root: site cloud has no service nova-api"):
        fit_to_site(a_site(tmp_path, services=services), only)
