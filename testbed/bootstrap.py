"""The first start: databases, tables, keystone's keys, users and endpoints. Kept for later starts.

Prepared are the disk with the database, the shared folder, the SSH keys and the secrets. Each belongs to
one root and one variant of the plan; a folder without its stamp was not finished and is not used.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from homeostat.kernel.files import read_json, write_json
from testbed.commands import output_of
from testbed.configuration import database_url
from testbed.machines import Machine, run_inside
from testbed.node_files import Keys
from testbed.places import Places
from testbed.plan import NODES, REGION, Node, Plan, Secrets
from testbed.preparing import root_words
from testbed.services import KEYSTONE, VENV

Say = Callable[[str], None]
DATABASES = (
    *("keystone", "placement", "nova_api", "nova", "nova_cell0"),
    *("neutron", "glance", "cinder", "heat"),
)
_SECRETS = "secrets.json"
_BIN = f"{VENV}/bin"
_WITHOUT_CACHE = ["env", "OS_CACHE__ENABLED=false"]
"""memcached is not there yet, and oslo.config hears the environment before its files."""


def key_of(plan_variant: str) -> str:
    """The name of a prepared folder: what is in it."""
    return f"{plan_variant}-{root_words()}"


def known_secrets(prepared: Path) -> Secrets:
    """Those that the prepared disks hold, else new ones."""
    found = read_json(prepared / _SECRETS)
    if found is not None:
        return Secrets(found["password"], found["key"])
    return Secrets(secrets.token_hex(12), secrets.token_hex(16))


def is_prepared(prepared: Path) -> bool:
    """Whether a first start went through."""
    return (prepared / _SECRETS).exists()


def make_keys(folder: Path) -> None:
    """One key to log in with and one key of each node, those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("id", *(each.name for each in NODES)):
        if not (folder / name).exists():
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"testbed {name}", "-f"]
            output_of([*made, str(folder / name)])


def keys_of(folder: Path, node: Node) -> Keys:
    """What SSH on one node needs of them."""
    return Keys(
        host_private=(folder / node.name).read_text(),
        host_public=(folder / f"{node.name}.pub").read_text(),
        authorized=(folder / "id.pub").read_text(),
    )


def make_databases(plan: Plan, machine: Machine) -> None:
    """Empty databases and their user; waits until the server answers."""
    wait = "for i in $(seq 600); do mariadb-admin ping >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1"
    run_inside(machine, ["sh", "-c", wait], what="mariadb does not answer")
    user = f"'openstack'@'%' identified by '{plan.secrets.password}'"
    statements = [
        f"create database if not exists {name} character set utf8mb4; grant all on {name}.* to {user};"
        for name in DATABASES
    ]
    run_inside(machine, ["mariadb"], what="databases", stdin="\n".join(statements))


def _manage(project: str, tool: str, *words: str) -> list[str]:
    return [f"{_BIN}/{tool}", "--config-file", f"/etc/{project}/{project}.conf", *words]


def table_chains(plan: Plan) -> dict[str, list[list[str]]]:
    """For each project the commands that make its tables, in their order."""
    cell_0 = ["--database_connection", database_url(plan, "nova_cell0")]
    ml2 = ["--config-file", "/etc/neutron/plugins/ml2/ml2_conf.ini"]
    glance = [f"{_BIN}/glance-manage", "--config-file", "/etc/glance/glance-api.conf", "db_sync"]
    return {
        "nova": [
            _manage("nova", "nova-manage", "api_db", "sync"),
            _manage("nova", "nova-manage", "cell_v2", "map_cell0", *cell_0),
            _manage("nova", "nova-manage", "cell_v2", "create_cell", "--name", "cell1"),
            _manage("nova", "nova-manage", "db", "sync"),
        ],
        "keystone": [
            _manage("keystone", "keystone-manage", "db_sync"),
            *(_keystone_keys(what) for what in ("fernet_setup", "credential_setup")),
            _keystone_bootstrap(plan),
        ],
        "neutron": [_manage("neutron", "neutron-db-manage", *ml2, "upgrade", "heads")],
        "cinder": [_manage("cinder", "cinder-manage", "db", "sync")],
        "heat": [_manage("heat", "heat-manage", "db_sync")],
        "glance": [glance],
        "placement": [_manage("placement", "placement-manage", "db", "sync")],
    }


def _keystone_keys(what: str) -> list[str]:
    return _manage("keystone", "keystone-manage", what, "--keystone-user", "root", "--keystone-group", "root")


def _keystone_bootstrap(plan: Plan) -> list[str]:
    url = plan.url(KEYSTONE.port, KEYSTONE.path)
    urls = [f"--bootstrap-{kind}-url={url}" for kind in ("admin", "internal", "public")]
    password = f"--bootstrap-password={plan.secrets.password}"
    return _manage(
        "keystone", "keystone-manage", "bootstrap", password, *urls, f"--bootstrap-region-id={REGION}"
    )


def make_tables(plan: Plan, machine: Machine, say: Say) -> None:
    """All tables, as many projects at once as there are CPUs. CommandFailed names the project."""
    output_of(machine.inside(["mkdir", "-p", "/srv/shared/keystone", "/srv/shared/images"]))

    def run(project: str, chain: Sequence[list[str]]) -> str:
        for argv in chain:
            run_inside(machine, _WITHOUT_CACHE + argv, what=f"tables of {project}: {Path(argv[0]).name}")
        return project

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        chains = [pool.submit(run, *item) for item in table_chains(plan).items()]
        for done in as_completed(chains):
            say(f"tables of {done.result()} are made")


def discover_computes(machine: Machine) -> None:
    """Map cmp1 into its cell now: the scheduler does so too, but only every 30 s."""
    argv = _manage("nova", "nova-manage", "cell_v2", "discover_hosts")
    run_inside(machine, argv, what="nova-manage discover_hosts")


def keep_prepared(places: Places, plan: Plan, prepared: Path, machine: Machine) -> None:
    """Copy what a later start begins with, while the database stands still for some seconds."""
    prepared.mkdir(parents=True, exist_ok=True)
    run_inside(machine, ["supervisorctl", "stop", "mariadb"], what="stop of mariadb")
    try:
        run_inside(machine, ["sync"], what="sync")
        copy_sparse(places.node(machine.node.name) / "disk.img", prepared / "database.img")
    finally:
        run_inside(machine, ["supervisorctl", "start", "mariadb"], what="start of mariadb")
    shutil.copytree(places.shared, prepared / "shared", dirs_exist_ok=True)
    write_json(prepared / _SECRETS, {"password": plan.secrets.password, "key": plan.secrets.key})


def copy_sparse(source: Path, target: Path) -> None:
    """Holes stay holes; shared blocks where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    output_of(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)])
