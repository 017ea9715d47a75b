"""The files of the nodes: complete, the same for the same plan, and what the programs themselves accept."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from homeostat.drills.language.catalogue import read_catalogue
from homeostat.drills.model import Drill, Suite
from homeostat.drills.node.settings import HostDrillSettings, InjectorKind, read_drilled_node
from homeostat.drills.planning.preparation import check_fit, fit_to_site, injector_order
from homeostat.drills.site import Site, read_site
from homeostat.kernel.config import validate
from testbed.access import (
    MACHINE,
    clouds,
    deviations,
    inventory,
    known_hosts,
    machine,
    own_command,
    site,
    ssh_config,
)
from testbed.balancing import haproxy_cfg, keepalived_conf
from testbed.configuration import configuration_files, render_ini
from testbed.node_files import DRILLED, Keys, first_script, node_files
from testbed.places import Places
from testbed.plan import CONTROLLERS, NODES, Checks, Node, Plan, Role, Secrets
from testbed.services import APIS, Program, programs
from testbed.supervision import restless, supervisord_conf

PLAN = Plan(Secrets("secret-word", "k" * 32))
KEYS = Keys("PRIVATE", "ssh-ed25519 AAAA node", "ssh-ed25519 BBBB id")
CTL1, CTL2 = CONTROLLERS


def _ini(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, default_section="none")
    parser.read_string(text)
    return parser


def test_an_ini_is_written_as_openstack_reads_it() -> None:
    assert render_ini({"a": {"on": True, "many": 3}, "b": {}}) == "[a]\non = true\nmany = 3\n\n[b]\n"


def test_controllers_differ_only_in_who_they_are() -> None:
    one, other = (node_files(PLAN, each, KEYS) for each in CONTROLLERS)
    assert one.keys() == other.keys()
    different = {path for path in one if one[path] != other[path]}
    own = {
        "/etc/hostname",
        "/etc/haproxy/haproxy.cfg",
        "/etc/keepalived/vip.conf",
    }
    assert different == own | {api.ini for api in APIS}
    for api in APIS:
        assert _ini(one[api.ini].text)["uwsgi"]["http-socket"] == f"10.77.0.11:{api.port}"


def test_same_plan_same_files() -> None:
    again = Plan(Secrets("secret-word", "k" * 32))
    for node in NODES:
        assert node_files(PLAN, node, KEYS) == node_files(again, node, KEYS)


def test_every_setting_file_is_sound_and_names_only_addresses_of_the_plan() -> None:
    moved = Plan(PLAN.secrets, network="10.9.8")
    for path, text in configuration_files(moved).items():
        assert _ini(text).sections(), path
        assert "10.77" not in text, path


def test_keystone_has_all_three_folders_of_keys() -> None:
    keystone = _ini(configuration_files(PLAN)["/etc/keystone/keystone.conf"])
    folders = {
        keystone[each]["key_repository"] for each in ("fernet_tokens", "fernet_receipts", "credential")
    }
    assert folders == {"/srv/shared/keystone/fernet-keys", "/srv/shared/keystone/credential-keys"}


def test_a_compute_node_is_the_same_for_nova_at_every_start() -> None:
    compute = next(each for each in NODES if each.role is Role.compute)
    ids = {
        node_files(plan, compute, KEYS)["/var/lib/nova/compute_id"]
        for plan in (PLAN, replace(PLAN, network="10.9.8"))
    }
    assert len(ids) == 1


def test_a_private_key_is_nobody_elses() -> None:
    files = node_files(PLAN, CTL1, KEYS)
    private = {path for path, file in files.items() if not file.mode & 0o077}
    assert private == {"/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/authorized_keys"}


def test_the_balancer_knows_both_places_of_every_api() -> None:
    for node in CONTROLLERS:
        text = haproxy_cfg(PLAN, node)
        for api in APIS:
            block = text.split(f"listen {api.name}\n")[1].split("listen ")[0]
            assert f"bind 10.77.0.100:{api.port}\n" in block
            assert f"server ctl1 10.77.0.11:{api.port} check" in block
            assert f"server ctl2 10.77.0.12:{api.port} check" in block


def test_slow_checks_see_a_dead_service_later() -> None:
    fast, slow = (haproxy_cfg(Plan(PLAN.secrets, checks=checks), CTL1) for checks in Checks)
    assert "inter 500ms fall 1 rise 2" in fast
    assert "timeout check 700ms" in fast
    assert "inter 1s fall 2 rise 2" in slow
    assert "timeout check 2s" in slow


def _priority(plan: Plan, node: Node) -> int:
    words = keepalived_conf(plan, node).split()
    return int(words[words.index("priority") + 1])


@pytest.mark.parametrize("holder", ["ctl1", "ctl2"])
def test_the_address_is_first_where_it_was_wished_and_leaves_without_haproxy(holder: str) -> None:
    plan = Plan(PLAN.secrets, vip_on=holder)
    at = {each.name: _priority(plan, each) for each in CONTROLLERS}
    other = next(name for name in at if name != holder)
    words = keepalived_conf(plan, CTL1).split()
    loss = int(words[words.index("weight") + 1])
    assert at[holder] > at[other] > at[holder] + loss


def test_a_supervisor_restarts_everything_unless_told_not_to() -> None:
    plan = Plan(PLAN.secrets, not_restarted=("nova-api",))
    for node in NODES:
        parsed = _ini(supervisord_conf(plan, node))
        for program in programs(plan, node):
            expected = node is not CTL1 or program.name != "nova-api"
            assert parsed[f"program:{program.name}"].getboolean("autorestart") is expected


def test_a_supervisor_may_have_a_part_of_its_programs() -> None:
    parsed = _ini(supervisord_conf(Plan(PLAN.secrets, database_on="ctl1"), CTL1, ("sshd", "mariadb")))
    assert [each for each in parsed.sections() if each.startswith("program:")] == [
        "program:sshd",
        "program:mariadb",
    ]


def test_a_program_that_dies_again_and_again_is_told_from_one_that_was_killed_once() -> None:
    line = "2026-11-21 11:00:00,000 WARN exited: {} ({}; not expected)\n"
    log = line.format("glance-api", "terminated by SIGKILL") + 3 * line.format("heat-api", "exit status 1")
    assert restless(log, deaths=3) == {"heat-api": "exit status 1, 3 times"}


@pytest.mark.parametrize("node", NODES, ids=lambda each: each.name)
def test_the_first_script_is_sound_and_leaves_the_machine(node: Node, tmp_path: Path) -> None:
    text = first_script(Places(tmp_path / "a place"), node)
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"hostname {node.name}\n" in text
    assert text.index("mount --make-rprivate /") < text.index("mount -o loop")
    assert text.index("umount -l /.machine") < text.index("supervisord --nodaemon")
    assert "{" not in text.replace("${", "")


def test_drills_read_what_they_may_do_from_the_nodes_own_file() -> None:
    for node in NODES:
        file = node_files(PLAN, node, KEYS)[DRILLED]
        assert not file.mode & 0o022  # one that others may write is refused
        read = HostDrillSettings.model_validate_json(file.text)
        assert read.enabled
        assert set(read.injectors) == set(InjectorKind) - {InjectorKind.node_power}
        assert {api.name for api in APIS} <= set(read.profiles)


def test_the_power_of_every_node_is_switched_on_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(yaml.safe_dump(machine(PLAN, tmp_path, ["testbed"])))
    read = read_drilled_node(path)
    assert read.host == MACHINE
    assert set(read.drills.power) == {each.name for each in NODES}
    assert read.drills.programs["power-off"].argv == (
        *("testbed", "node", "off", "{host}", "--state", str(tmp_path)),
    )


def test_our_own_command_works_from_anywhere(tmp_path: Path) -> None:
    asked = [*own_command(), "node", "state", "ctl1", "--state", str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout in ("on\n", "off\n"), done.stderr


def test_what_leads_to_the_cloud_has_every_host_and_service(tmp_path: Path) -> None:
    listed = inventory(PLAN, tmp_path)
    assert set(listed["hosts"]) == {each.name for each in NODES}
    assert set(listed["services"]) == {api.name for api in APIS}
    assert listed["services"]["nova-api"]["hosts"]["ctl2"] == "http://10.77.0.12:8774/"
    assert clouds(PLAN)["clouds"]["testbed"]["auth"]["auth_url"] == "http://10.77.0.100:5000/v3"
    assert yaml.safe_load(yaml.safe_dump(listed)) == listed


def test_ssh_knows_each_host_by_name_and_address(tmp_path: Path) -> None:
    public = {each.name: f"ssh-ed25519 KEY-{each.name} comment" for each in NODES}
    assert known_hosts(PLAN, public).splitlines()[1] == "ctl1,10.77.0.11 ssh-ed25519 KEY-ctl1"
    config = tmp_path / "ssh_config"
    config.write_text(ssh_config(PLAN, tmp_path))
    if shutil.which("ssh"):
        asked = ["ssh", "-G", "-F", str(config), "ctl2"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        assert {"hostname 10.77.0.12", "user root", "stricthostkeychecking true"} <= set(said)


def test_the_site_is_one_that_drills_accept(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site(PLAN, tmp_path, tmp_path / "openstack")))
    read = read_site(path)
    assert set(read.hosts) == {MACHINE, *(each.name for each in NODES)}
    assert set(read.services) == {*(api.name for api in APIS), "balancer", "database"}
    assert read.cloud is not None and read.cloud.client == str(tmp_path / "openstack")
    assert {read.services[api.name].uses[-1] for api in APIS} == {"database"}


@pytest.mark.seed("order the suite's drills fit the testbed's site, whichever variant it is")
@pytest.mark.parametrize(
    "plan",
    [PLAN, replace(PLAN, database_on="ctl1", vip_on="ctl2", checks=Checks.slow, not_restarted=("keystone",))],
    ids=["plain", "variant"],
)
def test_every_drill_of_an_openstack_fits_the_site(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site(plan, tmp_path, tmp_path / "openstack")))
    read = read_site(path)
    for suite in ("opnfv-ha", "opnfv-ha-variants"):
        found = read_catalogue().suite(suite).found
        assert isinstance(found, Suite)
        for name in found.drills:
            drill = read_catalogue().drill(name).found
            assert isinstance(drill, Drill)
            assert fit_to_site(read, drill) == (drill, ()), "nothing is left out"
            check_fit(read, drill, "ctl1")


def test_the_disk_that_is_hit_is_the_nodes_own_and_the_databases() -> None:
    for database_on, found in (("infra", {}), ("ctl1", {"database": "/disk/upper/var/lib/mysql"})):
        plan = replace(PLAN, database_on=database_on)
        read = validate(Site, site(plan, Path("/access"), Path("/client")))
        drill = read_catalogue().drill("controller-disk-io-overload").found
        assert isinstance(drill, Drill)
        order = injector_order(read, drill.fault, "ctl1", "r-1", 30)
        assert order["target"].get("data", {}) == found
        permitted = json.loads(node_files(plan, CTL1, KEYS)[DRILLED].text)
        assert permitted["writable_paths"] == ["/disk"]
        script = first_script(Places(Path("/state")), CTL1)
        assert 'mount --bind "$here/disk" "$root/disk"' in script


def test_the_site_says_what_is_not_as_in_a_real_cloud() -> None:
    told = deviations(PLAN)
    varied = deviations(replace(PLAN, checks=Checks.slow, not_restarted=("haproxy",), database_on="ctl1"))
    assert set(varied) - set(told) == {
        "one MariaDB, on ctl1",
        "the balancer checks slowly: inter 1s, fall 2, check timeout 2s",
        "nobody starts again on ctl1: haproxy",
    }


def test_what_is_down_is_started_by_the_nodes_own_supervisor() -> None:
    read = HostDrillSettings.model_validate_json(node_files(PLAN, CTL1, KEYS)[DRILLED].text)
    assert read.programs["restart-nova-api"].argv[-2:] == ("restart", "nova-api")
    assert {f"restart-{api.name}" for api in APIS} <= set(read.programs)
    assert {"restart-haproxy", "restart-keepalived"} <= set(read.programs)
    supervised = _ini(supervisord_conf(PLAN, CTL1))
    for each in read.programs.values():
        assert f"program:{each.argv[-1]}" in supervised


def test_programs_have_names_of_their_own() -> None:
    for node in NODES:
        found: list[Program] = programs(PLAN, node)
        assert len({each.name for each in found}) == len(found)
