"""Every file that a node has of its own, and the script that makes the node. Pure: a plan in, texts out.

The script is the first process in the node's namespaces. It mounts the node's disk over the shared root,
copies the files onto it, leaves the machine's file system behind and becomes supervisord, PID 1 there.
"""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.balancing import haproxy_cfg, keepalived_conf
from testbed.configuration import SHARED, configuration_files, uwsgi_files
from testbed.places import Places
from testbed.plan import NODES, Node, Plan, Role
from testbed.services import AFTER_KEYSTONE, KEYSTONE, L2_AGENT, STEADY_DRIVER, VENV, profiles, programs
from testbed.supervision import CONFIGURATION, LOGS, supervisord_conf

PROGRAMS = Path(__file__).with_name("programs")
DRILLED = "/etc/homeostat/drills.json"
"""Inside every node: what a drill over SSH may break there."""
DISK = "/disk"
"""Inside every node: its own disk below the overlay, a block device whose load the kernel counts."""

_SSHD = """UsePAM no
UseDNS no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
HostKey /etc/ssh/ssh_host_ed25519_key
"""
_AFTER_KEYSTONE = """#!/bin/bash
# after-keystone COMMAND...: becomes COMMAND once keystone has answered since this node's start.
# Without any program of its own: two dozen of these wait at once, and keystone needs the CPU.
asked() {{
  exec 3<>/dev/tcp/{address}/{port} || return
  printf 'GET /v3 HTTP/1.0\\r\\n\\r\\n' >&3
  read -r -t 5 -u 3 line && [[ $line == *' 200 '* ]]
}} 2>/dev/null
until [ -e /run/keystone-answered ] || (asked); do sleep 1; done
touch /run/keystone-answered
exec "$@"
"""
_RABBITMQ = """#!/bin/bash
export RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia HOME=/var/lib/rabbitmq
export RABBITMQ_LOGS=- RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups /usr/lib/rabbitmq/bin/rabbitmq-server
"""
_FOLDERS = (
    *("/run/sshd", "/run/lock", "/root/.ssh", LOGS),
    *("/var/lib/nova/tmp", "/var/lib/neutron/tmp", "/var/lib/cinder/tmp"),
    *("/var/lib/glance/staging", "/var/lib/glance/tasks"),
)


@dataclass(frozen=True, slots=True)
class Keys:
    """What SSH needs to know of one node."""

    host_private: str
    host_public: str
    authorized: str


@dataclass(frozen=True, slots=True)
class File:
    """A text and who may read it."""

    text: str
    mode: int = 0o644


def node_files(plan: Plan, node: Node, keys: Keys, only: Collection[str] = ()) -> dict[str, File]:
    """By absolute path inside the node. `only`: the programs that run, when it is not all of them."""
    found = {path: File(text) for path, text in configuration_files(plan).items()}
    found |= {
        "/etc/hostname": File(f"{node.name}\n"),
        "/etc/hosts": File(_hosts(plan)),
        "/etc/ssh/sshd_config.d/testbed.conf": File(_SSHD),
        "/etc/ssh/ssh_host_ed25519_key": File(keys.host_private, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": File(keys.host_public),
        "/root/.ssh/authorized_keys": File(keys.authorized, 0o600),
        CONFIGURATION: File(supervisord_conf(plan, node, only)),
        AFTER_KEYSTONE: File(_AFTER_KEYSTONE.format(address=plan.vip, port=KEYSTONE.port), 0o755),
        DRILLED: File(drilled(plan, node)),
    }
    match node.role:
        case Role.controller:
            found |= {path: File(text) for path, text in uwsgi_files(plan.address(node)).items()}
            found["/etc/haproxy/haproxy.cfg"] = File(haproxy_cfg(plan, node))
            found["/etc/keepalived/vip.conf"] = File(keepalived_conf(plan, node))
        case Role.infrastructure:
            found["/usr/local/sbin/run-rabbitmq"] = File(_RABBITMQ, 0o755)
            found["/etc/rabbitmq/rabbitmq.conf"] = File(_rabbitmq_conf(plan))
        case Role.compute:
            # nova refuses to start when the database knows this host and this file is another's or gone.
            found["/var/lib/nova/compute_id"] = File(f"{uuid.uuid5(uuid.NAMESPACE_DNS, node.name)}\n")
            found[L2_AGENT] = File((PROGRAMS / "l2_agent.py").read_text())
            found[STEADY_DRIVER] = File((PROGRAMS / "steady_driver.py").read_text())
    return found


def drilled(plan: Plan, node: Node) -> str:
    """The permission of a host without a process of ours: everything may be broken on any node.

    `restart-PROFILE` is for what a drill's clean-up finds to be down; supervisord may have given it up.
    """
    known = profiles()
    again = ["/usr/bin/supervisorctl", "--configuration", CONFIGURATION, "restart"]
    value = {
        "enabled": True,
        "injectors": ["node_kill", "node_freeze", "node_cpu", "node_disk", "node_network"],
        "writable_paths": [DISK],
        "profiles": {name: {"command_line": line} for name, line in known.items()},
        "programs": {
            f"restart-{each.name}": {"argv": [*again, each.name], "timeout_s": 60}
            for each in programs(plan, node)
            if each.name in known
        },
    }
    return json.dumps(value, indent=2) + "\n"


def _hosts(plan: Plan) -> str:
    lines = ["127.0.0.1 localhost", f"{plan.vip} vip"]
    return "\n".join([*lines, *(f"{plan.address(each)} {each.name}" for each in NODES)]) + "\n"


def _rabbitmq_conf(plan: Plan) -> str:
    return f"""listeners.tcp.default = 0.0.0.0:5672
loopback_users = none
default_user = openstack
default_pass = {plan.secrets.password}
"""


def first_script(places: Places, node: Node) -> str:
    """What becomes a node. It runs in namespaces of its own that nothing has been done in yet."""
    here = places.node(node.name)
    words: Mapping[str, str] = {
        "here": shlex.quote(str(here)),
        "lower": shlex.quote(str(places.root)),
        "shared": shlex.quote(str(places.shared)),
        "shared_inside": SHARED,
        "disk_inside": DISK,
        "name": node.name,
        "configuration": CONFIGURATION,
        "folders": " ".join(f'"$root{each}"' for each in _FOLDERS),
        "paste": f"{VENV}/etc/nova/api-paste.ini",
    }
    return _FIRST_SCRIPT.format_map(words)


_FIRST_SCRIPT = """#!/bin/bash
set -euo pipefail
here={here}
root=$here/root
mount --make-rprivate /
mkdir -p "$here/disk" "$root"
mount -o loop "$here/disk.img" "$here/disk"
mkdir -p "$here/disk/upper" "$here/disk/work"
mount -t overlay overlay -o lowerdir={lower},upperdir="$here/disk/upper",workdir="$here/disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom tty; do
  touch "$root/dev/$each"
  mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir -p "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for each in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${{each%%:*}}" "$root/dev/${{each#*:}}"; done
mkdir -p "$root{shared_inside}" "$root{disk_inside}" {folders}
mount --bind "$here/disk" "$root{disk_inside}"
mount --bind {shared} "$root{shared_inside}"
cp -R --preserve=mode "$here/files/." "$root/"
chmod 700 "$root/root/.ssh"
ln -sfn {paste} "$root/etc/nova/api-paste.ini"
hostname {name}
cd "$root"
mkdir -p .machine
pivot_root . .machine
umount -l /.machine
install -d -o mysql -g mysql /run/mysqld
cd /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \\
  XDG_CACHE_HOME={shared_inside}/cache \\
  /usr/bin/supervisord --nodaemon --configuration {configuration} >/run/supervisord.out 2>&1
"""
