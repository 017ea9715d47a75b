"""A token of the run: got once from a real small keystone by OpenStack's own library, and written nowhere."""

from __future__ import annotations

import html
import re
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from drilled_site import DRILL, HOMEOSTAT, DrilledSite, drilled_site
from openstack.config import OpenStackConfig
from small_keystone import PASSWORD, PROJECT_ID, TOKEN, SmallKeystone, small_keystone, words_of

import homeostat.drills
from homeostat.drills.clouds.connection import TOKEN_HEADER, CloudToken, issue_token
from homeostat.drills.clouds.openstack import connected
from homeostat.drills.language.catalogue import read_catalogue
from homeostat.drills.language.parser import drill_of
from homeostat.drills.model import Drill
from homeostat.drills.planning.preflight import RunPlace, client_configs, monitor_plans, sampler_configs
from homeostat.drills.planning.preparation import check_fit, fit_to_site
from homeostat.drills.site import Site, SiteCloud, read_site
from homeostat.kernel.errors import BadInput, GiveUp
from homeostat.monitors.supervision import monitor_command

DEVIATIONS = ["nova's driver is its own fake one: no guest runs", "nova-api runs under uwsgi"]


@pytest.fixture
def keystone() -> Iterator[SmallKeystone]:
    with small_keystone() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DrilledSite]:
    """Three hosts with one service behind a balancer."""
    with drilled_site(tmp_path) as made:
        yield made


async def test_the_library_gets_a_token_and_its_project(tmp_path: Path, keystone: SmallKeystone) -> None:
    cloud = SiteCloud(name="testbed", clouds_file=keystone.clouds_file(tmp_path))
    issued = await issue_token(cloud)
    assert (issued.token, issued.project_id) == (TOKEN, PROJECT_ID)
    assert TOKEN not in repr(issued)


async def test_a_password_in_secure_yaml_is_found_by_token_driver_and_client(
    tmp_path: Path, keystone: SmallKeystone, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keystone.clouds_file(tmp_path)
    given = yaml.safe_load(path.read_text())
    secret = given["clouds"]["testbed"]["auth"].pop("password")
    path.write_text(yaml.safe_dump(given))
    secure = {"clouds": {"testbed": {"auth": {"password": secret}}}}
    path.with_name("secure.yaml").write_text(yaml.safe_dump(secure))
    site = a_site(tmp_path, cloud=CLOUD)
    assert site.cloud is not None
    assert (await issue_token(site.cloud)).token == TOKEN
    assert connected(site.cloud).config.config["auth"]["password"] == secret
    drill, _ = fit_to_site(site, cloud_drill())
    plans = {each.id: each for each in monitor_plans(drill, 0)}
    (client,) = client_configs(RunPlace(site, "n1", tmp_path), drill, plans)
    for name, value in client.environment.items():
        monkeypatch.setenv(name, value)
    assert OpenStackConfig().get_one(cloud="testbed").config["auth"]["password"] == secret


def test_only_the_driver_knows_the_library() -> None:
    drills = Path(homeostat.drills.__file__).parent
    words = re.compile(r"^\s*(?:from|import) (?:openstack|keystoneauth1)\b", re.MULTILINE)
    found = [each for each in drills.rglob("*.py") if words.search(each.read_text())]
    assert found == [drills / "clouds" / "openstack.py"]


async def test_what_is_wrong_with_a_cloud_is_said_without_its_password(
    tmp_path: Path, keystone: SmallKeystone
) -> None:
    path = keystone.clouds_file(tmp_path)
    with pytest.raises(BadInput, match=r"cloud\.name: 'other' .*Cloud other was not found"):
        await issue_token(SiteCloud(name="other", clouds_file=path))
    with pytest.raises(BadInput, match=r"cloud\.clouds_file: .*none\.yaml"):
        await issue_token(SiteCloud(name="testbed", clouds_file=tmp_path / "none.yaml"))
    wrong = SiteCloud(name="testbed", clouds_file=keystone.clouds_file(tmp_path, "not-this-one"))
    with pytest.raises(GiveUp, match="cloud testbed: keystone gave no token") as told:
        await issue_token(wrong)
    assert "not-this-one" not in str(told.value)
    path.write_text("clouds: {testbed: [")
    with pytest.raises(BadInput, match=r"cloud\.name"):
        await issue_token(wrong)


async def test_a_token_that_may_end_during_the_run_is_refused(
    tmp_path: Path, keystone: SmallKeystone
) -> None:
    cloud = SiteCloud(name="testbed", clouds_file=keystone.clouds_file(tmp_path))
    issued = await issue_token(cloud)
    end_s = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    assert issued.expires_s == end_s
    issued.outlasts(cloud, 300, end_s - 301)
    with pytest.raises(GiveUp, match=r"its token ends in 299 s, the run may need 300 s; a longer expiration"):
        issued.outlasts(cloud, 300, end_s - 299)
    CloudToken("a", "b").outlasts(cloud, 300, end_s)


async def test_a_keystone_that_hangs_holds_nobody_up(tmp_path: Path, keystone: SmallKeystone) -> None:
    keystone.holds = True
    cloud = SiteCloud(name="testbed", clouds_file=keystone.clouds_file(tmp_path))
    with pytest.raises(GiveUp, match="gave no token"):
        await issue_token(cloud, within_s=0.5)


def cloud_drill(url: str = "http://127.0.0.1:1") -> Drill:
    """With a list of servers by token, the same by the client, and stacks where there is heat."""
    return drill_of(cloud_record(url))


def cloud_record(url: str) -> dict[str, Any]:
    path = "/v2.1/{project_id}/servers"
    monitors = [
        *DRILL["monitors"],
        {"id": "list", "kind": "http", "layer": "user", "target": {"url": url}, "path": path, "token": True},
        {"id": "cli", "kind": "cli", "layer": "user", "target": {"service": "web"}, "command": "server list",
         "period": "200ms", "deadline": "30s"},
        {"id": "stacks", "kind": "http", "layer": "user", "target": {"service": "heat-api"},
         "optional": True},
    ]  # fmt: skip
    outage = {"kind": "service_outage", "requirement": "R1.11", "limit": "5s"}
    checks = [
        *DRILL["checks"],
        outage | {"monitors": ["list"]},
        outage | {"monitors": ["cli"], "weight": "informative"},
        outage | {"monitors": ["list", "stacks"]},
    ]
    return DRILL | {"monitors": monitors, "checks": checks}


def a_site(folder: Path, **parts: Any) -> Site:
    web = {"endpoint": "http://127.0.0.1:1", "hosts": {"n1": {"profile": "web", "url": "http://127.0.0.1:2"}}}
    given = {"site": "small", "hosts": {"n1": {"config": "n1.yaml"}}, "services": {"web": web}} | parts
    (folder / "site.yaml").write_text(yaml.safe_dump(given))
    return read_site(folder / "site.yaml")


CLOUD = {"name": "testbed", "clouds_file": "clouds.yaml", "client": "bin/openstack"}


async def test_the_token_is_in_the_samplers_file_for_us_alone_and_nowhere_else(
    tmp_path: Path, keystone: SmallKeystone
) -> None:
    site = a_site(tmp_path, cloud=CLOUD)
    drill, _ = fit_to_site(site, cloud_drill())
    check_fit(site, drill, "n1")
    plans = {each.id: each for each in monitor_plans(drill, 0)}
    places = RunPlace(site, "n1", tmp_path)
    issued = await issue_token(SiteCloud(name="testbed", clouds_file=keystone.clouds_file(tmp_path)))
    configs = sampler_configs(places, drill, plans, issued)
    (found,) = [each for each in configs if each.headers]
    assert found.headers == {TOKEN_HEADER: TOKEN}
    assert found.url == f"http://127.0.0.1:1/v2.1/{PROJECT_ID}/servers"
    assert TOKEN not in repr(found) and TOKEN not in repr(found.target())
    command = monitor_command(found, tmp_path)
    assert stat.S_IMODE(command.config_file.stat().st_mode) == 0o600
    assert TOKEN not in " ".join(command.argv)


def test_the_client_is_asked_for_json_and_by_the_clouds_own_name(tmp_path: Path) -> None:
    site = a_site(tmp_path, cloud=CLOUD)
    drill, _ = fit_to_site(site, cloud_drill())
    for denser in (0, 2):
        plans = {each.id: each for each in monitor_plans(drill, denser)}
        (config,) = client_configs(RunPlace(site, "n1", tmp_path), drill, plans)
        words = ("--os-cloud", "testbed", "server", "list", "-f", "json")
        assert config.argv == (str(tmp_path / "bin" / "openstack"), *words)
        assert config.environment == {
            "OS_CLIENT_CONFIG_FILE": str(tmp_path / "clouds.yaml"),
            "OS_CLIENT_SECURE_FILE": str(tmp_path / "secure.yaml"),
        }
        assert (config.period_ms, config.deadline_ms, config.baseline_samples) == (200, 30_000, 2)


def test_several_commands_begin_one_after_the_other(tmp_path: Path) -> None:
    """Each costs a second of a CPU: together they would measure themselves."""
    drill = read_catalogue().drill("controller-cpu-overload").found
    assert isinstance(drill, Drill)
    plans = {each.id: each for each in monitor_plans(drill, 0)}
    configs = client_configs(RunPlace(a_site(tmp_path, cloud=CLOUD), "n1", tmp_path), drill, plans)
    assert [each.phase_ms for each in configs] == [0, 4000, 8000, 12000]


def test_a_site_without_a_cloud_is_told_by_its_field(tmp_path: Path) -> None:
    drill, _ = fit_to_site(a_site(tmp_path), cloud_drill())
    with pytest.raises(BadInput, match=r"cloud: .*for monitor list"):
        check_fit(a_site(tmp_path), drill, "n1")


def openstack(site: DrilledSite, keystone: SmallKeystone) -> Path:
    """The site is an OpenStack's, too; the file in which its client writes down what it was asked."""
    keystone.clouds_file(site.state)
    asked = site.state / "asked"
    client = site.state / "bin" / "openstack"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\necho "$OS_CLIENT_CONFIG_FILE $*" >> {asked}\necho "[]"\n')
    client.chmod(0o755)
    given = yaml.safe_load((site.state / "site.yaml").read_text())
    given |= {"cloud": CLOUD, "deviations": DEVIATIONS}
    (site.state / "site.yaml").write_text(yaml.safe_dump(given))
    return asked


@pytest.mark.seed("000 R1.5 two monitors: the process, and the list command of the user")
@pytest.mark.seed("000 I26 the service is asked with a token that is used again")
@pytest.mark.slow
def test_a_drill_with_a_token_and_the_client_from_plan_to_report(
    site: DrilledSite, keystone: SmallKeystone
) -> None:
    asked = openstack(site, keystone)
    site.write_drill(cloud_record(f"http://127.0.0.1:{keystone.port}"))
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
    assert keystone.tokens_issued == 1
    assert set(keystone.asked) == {(f"/v2.1/{PROJECT_ID}/servers", TOKEN)}
    words = f"{site.state / 'clouds.yaml'} --os-cloud testbed server list -f json"
    assert set(asked.read_text().splitlines()) == {words}

    assert ran.report["deviations"] == DEVIATIONS
    assert ran.report["left_out"] == [{"monitor": "stacks", "why": "site small has no service heat-api"}]
    row = ran.row("outage of cli")
    assert (row["binding"], row["literal_ms"], row["literal_result"]) == (False, 0, "PASS")
    assert row["lower_ms"] == 0 and row["upper_ms"] > 0, "two calls leave room between them"
    assert [each["when"] for each in ran.report["load"]] == ["begin", "end"]
    layers = {each["monitor"]: each for each in ran.report["layers"]}
    assert "stacks" not in layers
    assert layers["there"]["back_ms"] >= 200, "when it answers again on the host that was hit"
    assert layers["processes"]["back_ms"] is not None and layers["list"]["back_ms"] is None
    assert layers["there"]["before_p50_ms"] > 0 and layers["there"]["lateness_ms"] is not None

    said = words_of(site.runs) + ran.said + str(ran.report)
    assert TOKEN not in said and PASSWORD not in said
    (folder,) = site.runs.glob("r-*")
    for form in ("console", "junit", "html"):
        argv = [*HOMEOSTAT, "drill", "report", str(folder), "-f", form, "--dir", str(site.state)]
        page = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        page = " ".join(html.unescape(page).split())
        assert all(each in page for each in (*DEVIATIONS, "has no service heat-api")), form
        if form == "html":
            assert "the published loop over the same calls: 0 ms, PASS" in page
        assert TOKEN not in page


def test_with_a_token_that_is_about_to_end_nothing_is_broken(
    site: DrilledSite, keystone: SmallKeystone
) -> None:
    keystone.lasts_until = f"{datetime.now(UTC) + timedelta(seconds=20):%Y-%m-%dT%H:%M:%S.000000Z}"
    openstack(site, keystone)
    site.write_drill(cloud_record(f"http://127.0.0.1:{keystone.port}"))
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("cloud testbed: its token ends in" in row["detail"] for row in ran.report["rows"])
    assert not site.facts("Injecting")


def test_without_a_token_nothing_is_broken(site: DrilledSite, keystone: SmallKeystone) -> None:
    openstack(site, keystone)
    keystone.clouds_file(site.state, "not-this-one")
    site.write_drill(cloud_record(f"http://127.0.0.1:{keystone.port}"))
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    assert any("keystone gave no token" in each for each in ran.report["because"] + [
        row["detail"] for row in ran.report["rows"]
    ])  # fmt: skip
    assert not site.facts("Injecting")
