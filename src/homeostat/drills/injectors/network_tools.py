"""The network tools of a host: which are there, what they may do, and in which network namespace they act."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from homeostat.drills import node_keeper as keeper
from homeostat.kernel.errors import GiveUp, NotAllowed
from homeostat.kernel.processes import die_with_parent

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_TOOL_S = 5.0


def own_namespace() -> int:
    """The inode of this process's network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


def may(capability: int) -> bool:
    """Whether this process has a capability."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability & 1)


def missing_for_cut(other_namespace: bool) -> list[str]:
    """What is missing to drop packets with nftables or iptables; empty when nothing is."""
    return _missing_privileges(other_namespace) or ([] if firewall() else _no_firewall())


def missing_for_latency(other_namespace: bool) -> list[str]:
    """What is missing to delay packets with netem; empty when nothing is."""
    missing = _missing_privileges(other_namespace)
    missing += [f"the tool {tool}" for tool in ("tc", "ip") if shutil.which(tool) is None]
    if missing:
        return missing
    failure = _tried("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    return [f"netem in this kernel (module sch_netem): {failure}"] if failure else []


def firewall() -> str | None:
    """`nft` or `iptables`, whichever works here; None when neither does."""
    if shutil.which("nft") and not _tried("nft", "add", "table", "inet", "homeostat_probe"):
        return "nft"
    if shutil.which("iptables") and not _tried("iptables", "-w", "5", "-N", "homeostat_probe"):
        return "iptables"
    return None


def run_inside(netns: int, argv: Sequence[str], text: str | None = None) -> str:
    """Run a tool in a network namespace; it dies with this process. GiveUp when the tool fails."""
    prefix = keeper.entering(netns)
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


def refuse(missing: Sequence[str]) -> None:
    """NotAllowed that names everything that is missing."""
    if missing:
        raise NotAllowed(f"the network cannot be touched here; missing: {'; '.join(missing)}")


def _missing_privileges(other_namespace: bool) -> list[str]:
    missing = [] if may(_CAP_NET_ADMIN) else ["the privilege CAP_NET_ADMIN"]
    if other_namespace and not may(_CAP_SYS_ADMIN):
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
    if not may(_CAP_SYS_ADMIN) or shutil.which("unshare") is None:
        return None
    done = subprocess.run(
        ["unshare", "--net", *argv], capture_output=True, text=True, timeout=_TOOL_S, check=False
    )
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it fails"])[0]
