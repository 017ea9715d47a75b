"""The commands `homeostat lease hosts`: which machines may be reserved, and which are held."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from homeostat.kernel.cli import Answer, AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import errors_in_one_line, parse_duration, parse_time
from homeostat.leases.cli import local_minute

commands = typer.Typer(
    help="Hosts that may be reserved; `homeostat host` is the machine.", no_args_is_help=True
)
Host = Annotated[str, typer.Argument(help="Its name, as `homeostat host ls` shows it.")]

_COLUMNS = ("host", "state", "vcpus", "memory", "disk", "properties", "leases", "at_risk", "reason")


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List them; `at risk`: leases without replacement if it fails. Example: homeostat lease hosts ls"""
    answer = ask(directory, "GET", "lease-hosts")
    show_items(answer, as_json, _COLUMNS, "No host may be reserved; see `homeostat lease hosts add`.", _row)


@commands.command("add")
def add(
    host: Host,
    property: Annotated[
        list[str] | None,
        typer.Option("--property", help="What requirements may name, as rack=r1; may be repeated."),
    ] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Let a host be reserved from now on. Example: homeostat lease hosts add n1 --property rack=r1"""
    with errors_in_one_line():
        pairs = dict(_pair(each) for each in property or ())
    body = {"host": host, "properties": pairs}
    show_answer(ask(directory, "POST", "lease-hosts", body=body), as_json, _record)


@commands.command("rm")
def rm(host: Host, directory: Directory = None) -> None:
    """Let a host be reserved no more; refused while it is. Example: homeostat lease hosts rm n1"""
    ask(directory, "DELETE", "lease-hosts", host)
    print(f"Host {host} cannot be reserved any more.")


@commands.command("hold")
def hold(  # noqa: PLR0913 - a hold has this many fields
    host: Host,
    reason: Annotated[str, typer.Option(help="Why.")],
    lasts: Annotated[str | None, typer.Option("--for", help="For 2h; without it, until released.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Until this time.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Keep new reservations and monitors from a host. What is reserved there stays.

    Example: homeostat lease hosts hold n1 --reason "new memory" --for 2h
    """
    with errors_in_one_line():
        if lasts is not None and until is not None:
            raise BadInput("--until", until, "--until or --for, not both")
        given: dict[str, Any] = {
            "reason": reason,
            "for_s": None if lasts is None else parse_duration("--for", lasts).total_seconds(),
            "until_at": None if until is None else parse_time("--until", until).isoformat(),
        }
    body = {field: value for field, value in given.items() if value is not None}
    show_answer(ask(directory, "PUT", "lease-hosts", host, "hold", body=body), as_json, _record)


@commands.command("release")
def release(host: Host, directory: Directory = None, as_json: AsJson = False) -> None:
    """End the hold of a host: it may be reserved again. Example: homeostat lease hosts release n1"""
    show_answer(ask(directory, "DELETE", "lease-hosts", host, "hold"), as_json, _record)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadInput("--property", text, "a name and a value: rack=r1")
    return name, value


def _row(row: Answer) -> Answer:
    hold = row["hold"]
    known = "failed" if row["failed"] else "unknown"
    state = "held" if hold else "reservable" if row["reservable"] else known
    reasons = [row["reason"] if not row["reservable"] else ""]
    if hold:
        until = f" until {local_minute(hold['until_at'])}" if hold["until_at"] else ""
        reasons.append(f"held{until} by {hold['by']}: {hold['reason']}")
    return row | {
        "state": state,
        "vcpus": row["vcpus"] or "?",
        "memory": f"{row['memory_mb']} MB" if row["memory_mb"] else "?",
        "disk": f"{row['disk_gb']} GB" if row["disk_gb"] else "?",
        "properties": ", ".join(f"{name}={value}" for name, value in row["properties"].items()),
        "at_risk": ", ".join(row["at_risk"]),
        "reason": "; ".join(filter(None, reasons)),
    }


def _record(row: Answer) -> Answer:
    shown = _row(row)
    names = (
        "host",
        "number",
        "state",
        "reason",
        "vcpus",
        "memory",
        "disk",
        "architecture",
        "properties",
        "leases",
    )
    return {name: shown[name] for name in names if shown[name] not in ("", None)}
