"""Injector that cuts or delays the network of a host or of one network namespace, by rules of our own name.

`cut` drops packets in our own nftables table (or our own iptables chain where there is no nft); `latency` is
netem with our own handle, only on a device without a queueing discipline of somebody's. Nothing of anybody
else's is changed, flushed or read by a pattern. The undo is on this host: it needs no network. What is
missing (privileges, tools, kernel modules) is found before the fault, by trying in a namespace made for it
alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from homeostat.drills.shipped.injectors.matching import ProcessTarget, match_processes, process_target
from homeostat.drills.shipped.injectors.record import InjectedFault, Section, keeper_errors
from homeostat.drills.shipped.keeper import machine, orders, steps
from homeostat.drills.shipped.keeper.steps import Step
from homeostat.drills.shipped.permissions import Address
from homeostat.kernel.errors import BadInput, GiveUp, NotAllowed, NotFound
from homeostat.kernel.processes import die_with_parent

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_TOOL_S = 5.0


def own_namespace() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def has_capability(capability: int) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability & 1)


def firewall() -> str | None:
    """`nft` or `iptables`, whichever works here; None when neither does."""
    if shutil.which("nft") and not _tried("nft", "add", "table", "inet", "homeostat_probe"):
        return "nft"
    if shutil.which("iptables") and not _tried("iptables", "-w", "5", "-N", "homeostat_probe"):
        return "iptables"
    return None


def run_inside(netns: int, argv: Sequence[str], text: str | None = None) -> str:
    """Run a tool in a network namespace; it dies with this process. GiveUp when the tool fails."""
    prefix = steps.entering(netns)
    if prefix is None:
        raise GiveUp("the network namespace is gone; nothing was done")
    done = subprocess.run(
        [*prefix, *argv],
        input=text if text is not None else "",
        capture_output=True,
        text=True,
        timeout=_TOOL_S,
        check=False,
        preexec_fn=die_with_parent(),
    )
    if done.returncode != 0:
        raise GiveUp(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _missing_privileges(other_namespace: bool) -> list[str]:
    missing = [] if has_capability(_CAP_NET_ADMIN) else ["the privilege CAP_NET_ADMIN"]
    if other_namespace and not has_capability(_CAP_SYS_ADMIN):
        missing.append("the privilege CAP_SYS_ADMIN, to enter another network namespace")
    if other_namespace and shutil.which("nsenter") is None:
        missing.append("the tool nsenter, to enter another network namespace")
    return missing


def _no_firewall() -> list[str]:
    tools = [tool for tool in ("nft", "iptables") if shutil.which(tool)]
    if not tools:
        return ["the tool nft or iptables"]
    return [f"nftables or iptables in this kernel: {' and '.join(tools)} are here and do not work"]


def _tried(*argv: str) -> str | None:
    """Why a command fails in a namespace made for it alone; None when it works, or cannot be tried."""
    if not has_capability(_CAP_SYS_ADMIN) or shutil.which("unshare") is None:
        return None
    done = subprocess.run(
        ["unshare", "--net", *argv], capture_output=True, text=True, timeout=_TOOL_S, check=False
    )
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it fails"])[0]


_DEFAULT_HANDLE = "0:"
_NETNS = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
_DEVICE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"


@dataclass(frozen=True)
class NetworkTarget:
    """What is cut or delayed, and where."""

    does: str
    netns: Optional[str]
    """A namespace of `ip netns`; ours when neither this nor `namespace_of` is given."""
    namespace_of: Optional[ProcessTarget]
    """The namespace in which these processes are; they must share one."""
    device: Optional[str]
    """Latency: the device, necessary. Cut: only what passes it; default everything but `lo`."""
    ports: Tuple[int, ...]
    """Cut only: TCP ports of services here."""
    peers: Tuple[Address, ...]
    """Cut only: addresses of others."""
    delay_ms: int
    window_s: float
    """How long a packet is waited for that meets the rules."""


def probe(fault: InjectedFault) -> Section:
    """Which privilege, tool or part of the kernel is missing, if any."""
    target = _target(fault)
    missing = _missing(target, _namespace(fault, target))
    return {"able": not missing, "missing": missing}


def plan(fault: InjectedFault) -> Section:
    """The rules word for word. NotAllowed naming what is missing, or when the device is somebody's."""
    target = _target(fault)
    netns = _namespace(fault, target)
    if missing := _missing(target, netns):
        raise NotAllowed(f"the network cannot be touched here; missing: {'; '.join(missing)}")
    if target.device is not None:
        _check_device(target, netns)
    if target.does == "latency":
        handle = f"{0x8000 + secrets.randbelow(0x7FFF):x}:"
        words = ["tc", "qdisc", "add", "dev", str(target.device), "root", "handle", handle]
        words += ["netem", "delay", f"{target.delay_ms}ms"]
        undoing = _undoing([steps.step_qdisc(netns, str(target.device), handle)])
        return {"does": " ".join(words), "netns": netns, "commands": [words], "text": None, **undoing}
    name = f"homeostat_{secrets.token_hex(6)}"
    if firewall() == "nft":
        text = _nft_text(name, target)
        undoing = _undoing([steps.step_table(netns, name)])
        return {"does": text, "netns": netns, "commands": [["nft", "-f", "-"]], "text": text, **undoing}
    commands = [words for command in _iptables_of(target) for words in _iptables_words(command, name, target)]
    undoing = _undoing([steps.step_chain(netns, command, name) for command in _iptables_of(target)])
    does = "; ".join(" ".join(words) for words in commands)
    return {"does": does, "netns": netns, "commands": commands, "text": None, **undoing}


def inject(fault: InjectedFault) -> Section:
    """Put the steps on disk, then the rules in place."""
    planned, target = fault.section("plan"), _target(fault)
    if _namespace(fault, target) != planned["netns"]:
        raise NotFound("the network namespace is not the one that was planned; plan again")
    with keeper_errors():
        orders.arm(fault.keeper, fault.id, fault.order.deadline_s, os.getpid(), planned["steps"])
        before_ns = machine.now_ns()
        for words in planned["commands"]:
            run_inside(planned["netns"], words, planned["text"])
        after_ns = machine.now_ns()
        orders.injected(fault.keeper, fault.id)
    return {"before_ns": before_ns, "after_ns": after_ns}


def prove(fault: InjectedFault) -> Section:
    """The rules are there, and a packet met them within the window. Without traffic nothing is proven."""
    planned, target = fault.section("plan"), _target(fault)
    fault.section("inject")
    there = not any(steps.verify_step(step)["undone"] for step in planned["steps"])
    if not there:
        return {"proven": False, "reason": "the rules are not there", "packets": 0}
    packets = _counted(planned["steps"][0], planned["netns"])
    end_ns = machine.now_ns() + int(target.window_s * 1e9)
    while (count := packets()) == 0 and machine.now_ns() < end_ns:
        time.sleep(0.05)
    reason = None if count else f"no packet met the rules within {target.window_s:g} s"
    return {"proven": count > 0, "reason": reason, "packets": count}


def _target(fault: InjectedFault) -> NetworkTarget:
    words = fault.target
    inner = words.words("namespace_of")
    target = NetworkTarget(
        does=words.one_of("does", ("cut", "latency")),
        netns=words.text("netns", _NETNS),
        namespace_of=None if inner is None else process_target(inner),
        device=words.text("device", _DEVICE),
        ports=words.wholes("ports") or (),
        peers=words.addresses("peers"),
        delay_ms=words.whole("delay_ms", 100, 1, 60_000),
        window_s=words.number("window_s", 2.0, 0.2, 60),
    )
    words.end()
    if target.does == "latency" and (target.device is None or target.ports or target.peers):
        raise words.wrong("does", "latency", "latency needs a device, and takes no ports and no peers")
    if target.netns is not None and inner is not None:
        raise words.wrong("netns", target.netns, "netns or namespace_of, not both")
    if outside := [port for port in target.ports if not 0 < port < 65536]:
        raise words.wrong("ports", outside[0], "ports are 1 to 65535")
    return target


def _undoing(made: list[Step]) -> Section:
    names = [step.get("table") or step.get("chain") or f"{step['device']} {step['handle']}" for step in made]
    return {
        "steps": made,
        "undo": [f"remove our own {step['kind']} {name}" for step, name in zip(made, names)],
    }


def _namespace(fault: InjectedFault, target: NetworkTarget) -> int:
    """The inode of the namespace. NotFound, BadInput."""
    if target.netns is not None:
        try:
            return (Path("/run/netns") / target.netns).stat().st_ino
        except OSError as error:
            raise NotFound(f"target.netns: no network namespace {target.netns} here") from error
    if target.namespace_of is None:
        return own_namespace()
    found = {_namespace_of(each.pid) for each in match_processes(fault, target.namespace_of)}
    if len(found) != 1:
        raise BadInput("target.namespace_of", len(found), "processes that share one network namespace")
    return found.pop()


def _namespace_of(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except PermissionError as error:
        raise NotAllowed(
            f"no permission to see the network namespace of process {pid}; run as root"
        ) from error
    except OSError as error:
        raise NotFound(f"process {pid} is gone") from error


def _missing(target: NetworkTarget, netns: int) -> list[str]:
    """What is missing to drop packets, or to delay them with netem; empty when nothing is."""
    missing = _missing_privileges(netns != own_namespace())
    if target.does == "cut":
        return missing or ([] if firewall() else _no_firewall())
    missing += [f"the tool {tool}" for tool in ("tc", "ip") if shutil.which(tool) is None]
    if missing:
        return missing
    failure = _tried("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    return [f"netem in this kernel (module sch_netem): {failure}"] if failure else []


def _check_device(target: NetworkTarget, netns: int) -> None:
    """NotFound without the device; for latency NotAllowed when it has a discipline of somebody's."""
    links = json.loads(run_inside(netns, ["ip", "-j", "link", "show"]))
    if target.device not in [link["ifname"] for link in links]:
        raise NotFound(f"target.device: no network device {target.device} there")
    if target.does == "cut":
        return
    shown = json.loads(run_inside(netns, ["tc", "-j", "qdisc", "show", "dev", str(target.device)]))
    roots = [each for each in shown if each.get("root")]
    if theirs := [each for each in roots if each["handle"] != _DEFAULT_HANDLE]:
        kind = theirs[0]["kind"]
        raise NotAllowed(
            f"target.device: {target.device} has a queueing discipline of somebody's ({kind}); not touched"
        )


def _nft_text(name: str, target: NetworkTarget) -> str:
    """Our table: early hooks, so that nobody's accept comes before."""
    incoming = _nft_rules("iifname", "saddr", "dport", target)
    outgoing = _nft_rules("oifname", "daddr", "sport", target)
    lines = [f"table inet {name} {{"]
    for chain, rules in (("input", incoming), ("output", outgoing)):
        lines.append(f"  chain {chain} {{ type filter hook {chain} priority -350; policy accept;")
        lines += [f"    {rule} counter drop" for rule in rules]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _nft_rules(interface: str, address: str, port: str, target: NetworkTarget) -> list[str]:
    narrow = bool(target.ports or target.peers)
    device = f'{interface} "{target.device}"' if target.device else "" if narrow else f'{interface} != "lo"'
    ports = f"tcp {port} {{ {', '.join(map(str, target.ports))} }}" if target.ports else ""
    peers: list[str] = []
    for family, version in (("ip", 4), ("ip6", 6)):
        if named := [str(peer) for peer in target.peers if peer.version == version]:
            peers.append(f"{family} {address} {{ {', '.join(named)} }}")
    return [" ".join(filter(None, (device, peer, ports))) for peer in peers or [""]]


def _iptables_of(target: NetworkTarget) -> list[str]:
    versions = {peer.version for peer in target.peers} or {4, 6}
    return [command for command, version in (("iptables", 4), ("ip6tables", 6)) if version in versions]


def _iptables_words(command: str, name: str, target: NetworkTarget) -> list[list[str]]:
    """Our chain with its rules first, the jumps to it last."""
    start = [command, "-w", "5"]
    words = [[*start, "-N", name]]
    version = 4 if command == "iptables" else 6
    peers = [str(peer) for peer in target.peers if peer.version == version]
    for interface, address, port in (("-i", "-s", "--dport"), ("-o", "-d", "--sport")):
        narrow = bool(target.ports or target.peers)
        device = [interface, target.device] if target.device else [] if narrow else ["!", interface, "lo"]
        for peer in peers or [""]:
            for number in target.ports or (0,):
                rule = [*device, *([address, peer] if peer else [])]
                rule += ["-p", "tcp", port, str(number)] if number else []
                words.append([*start, "-A", name, *rule, "-j", "DROP"])
    return [*words, [*start, "-I", "INPUT", "-j", name], [*start, "-I", "OUTPUT", "-j", name]]


def _counted(step: Step, netns: int) -> Callable[[], int]:
    """How many packets have met the rules of a step."""

    def table() -> int:
        shown = json.loads(run_inside(netns, ["nft", "-j", "list", "table", "inet", step["table"]]))
        rules = [each["rule"]["expr"] for each in shown["nftables"] if "rule" in each]
        return sum(int(part["counter"]["packets"]) for rule in rules for part in rule if "counter" in part)

    def chain() -> int:
        shown = run_inside(netns, [step["command"], "-w", "5", "-nvxL", step["chain"]])
        return sum(int(line.split()[0]) for line in shown.splitlines()[2:] if line.split())

    def qdisc() -> int:
        shown = json.loads(run_inside(netns, ["tc", "-s", "-j", "qdisc", "show", "dev", step["device"]]))
        return sum(int(each["packets"]) for each in shown if each["handle"] == step["handle"])

    return {"table": table, "chain": chain, "qdisc": qdisc}[step["kind"]]
