"""The network of the nodes: a bridge in a namespace of its own, a link to each node and one to the machine.

The nodes reach each other and the machine, nothing else. Each function may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from testbed.commands import output_of, succeeds
from testbed.failures import TestbedFailed
from testbed.places import FABRIC, HOST_LINK, MARK, link_of, namespace_of
from testbed.plan import Node, Plan

_NAMED = Path("/run/netns")


def make_fabric(plan: Plan) -> None:
    """Bridge and the machine's own link. TestbedFailed when its addresses are somebody else's."""
    if FABRIC in namespaces():
        return
    _refuse_taken(plan)
    _ip("netns", "add", FABRIC)
    _ip("-n", FABRIC, "link", "set", "lo", "up")
    _ip("-n", FABRIC, "link", "add", "br0", "type", "bridge")
    _ip("-n", FABRIC, "link", "set", "br0", "up")
    _ip("link", "add", HOST_LINK, "type", "veth", "peer", "name", HOST_LINK, "netns", FABRIC)
    _ip("-n", FABRIC, "link", "set", HOST_LINK, "master", "br0", "up")
    _ip("address", "add", f"{plan.host_address}/24", "dev", HOST_LINK)
    _ip("link", "set", HOST_LINK, "up")


def _refuse_taken(plan: Plan) -> None:
    for route in json.loads(output_of(["ip", "-json", "route", "show"])):
        if route["dst"].startswith(f"{plan.network}.") and route.get("dev") != HOST_LINK:
            raise TestbedFailed(f"network {plan.network}.0/24: {route['dev']} has it already; give --network")


def join(plan: Plan, node: Node) -> None:
    """The node's namespace with its address, on the bridge."""
    name, link = namespace_of(node.name), link_of(node.name)
    # A namespace that was deleted takes its links with it some time later.
    succeeds(["ip", "-n", FABRIC, "link", "delete", link])
    if name in namespaces():
        _ip("netns", "delete", name)
    _ip("netns", "add", name)
    _ip("link", "add", link, "netns", FABRIC, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", FABRIC, "link", "set", link, "master", "br0", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "address", "add", f"{plan.address(node)}/24", "dev", "eth0")
    # haproxy listens on the common address on both controllers, and only one has it.
    inside = ["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"]
    output_of(inside)


def leave(node: Node) -> None:
    """Remove the node's namespace and link."""
    if namespace_of(node.name) in namespaces():
        _ip("netns", "delete", namespace_of(node.name))
    succeeds(["ip", "-n", FABRIC, "link", "delete", link_of(node.name)])


def holds(node: Node, address: str) -> bool:
    """Whether the node has this address now."""
    name = namespace_of(node.name)
    if name not in namespaces():
        return False
    shown = json.loads(output_of(["ip", "-n", name, "-json", "address", "show"]))
    return address in {held.get("local") for link in shown for held in link.get("addr_info", ())}


def namespaces() -> list[str]:
    """Our network namespaces that are there."""
    return sorted(path.name for path in _NAMED.glob(f"{MARK}-*")) if _NAMED.is_dir() else []


def processes_in(names: Sequence[str]) -> set[int]:
    """Every process of the machine whose network is one of these namespaces."""
    inodes = set()
    for name in names:
        with suppress(FileNotFoundError):
            inodes.add((_NAMED / name).stat().st_ino)
    found = set()
    for folder in Path("/proc").iterdir():
        if inodes and folder.name.isdigit():
            with suppress(OSError):
                if (folder / "ns/net").stat().st_ino in inodes:
                    found.add(int(folder.name))
    return found


def links() -> list[str]:
    """Our links in the machine's own namespace."""
    shown = json.loads(output_of(["ip", "-json", "link", "show"]))
    return sorted(each["ifname"] for each in shown if each["ifname"].startswith(MARK))


def remove_fabric() -> None:
    """Everything of the network that is left."""
    for name in namespaces():
        succeeds(["ip", "netns", "delete", name])
    for name in links():
        succeeds(["ip", "link", "delete", name])


def _ip(*words: str) -> None:
    output_of(["ip", *words])
