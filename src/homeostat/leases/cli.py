"""The commands `homeostat lease`: book hosts or parts of hosts, look, change, acknowledge, explain.

A lease is named by its id, by the first eight characters of it, or by its name while only one has that.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from homeostat.kernel.cli import Answer, AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.errors import BadInput
from homeostat.kernel.terminal import errors_in_one_line, parse_duration, parse_time, show_json, show_table

commands = typer.Typer(help="Leases: hosts, or parts of hosts, reserved for a time.", no_args_is_help=True)

LeaseArgument = Annotated[str, typer.Argument(help="Its id, the first 8 characters of that, or its name.")]
HostCount = Annotated[
    str | None, typer.Option("--hosts", help="Whole hosts: 2, or 1-3 for one at least and three at most.")
]
Instances = Annotated[int | None, typer.Option("--instances", min=1, help="Parts of hosts: how many.")]
Vcpus = Annotated[int | None, typer.Option("--vcpus", min=1, help="Cores of each part.")]
MemoryMb = Annotated[int | None, typer.Option("--memory-mb", min=1, help="Memory of each part, in MB.")]
DiskGb = Annotated[int | None, typer.Option("--disk-gb", min=0, help="Disk of each part, in GB.")]
Start = Annotated[str | None, typer.Option("--start", help="A time, or 2h from now.")]
End = Annotated[str | None, typer.Option("--end", help="A time, or 2h from now.")]
Remind = Annotated[str | None, typer.Option("--remind", help="When you are reminded of the end.")]
Require = Annotated[
    str | None,
    typer.Option("--require", help="""What the hosts must have, as '[">=", "$vcpus", "4"]'."""),
]

_COLUMNS = ("id", "name", "project", "status", "health", "hosts", "from", "to")


@commands.command("ls")
def ls(
    all_leases: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, by their starts.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List leases: status, health, and the outlook if one host fails. Example: homeostat lease ls"""
    answer = ask(directory, "GET", "leases", all="true" if all_leases else None, limit=limit)
    show_items(answer, as_json, _COLUMNS, "No leases.", _row)


@commands.command("show")
def show(lease: LeaseArgument, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one lease with its reservations and their hosts. Example: homeostat lease show build-farm"""
    _show(ask(directory, "GET", "leases", lease), as_json)


@commands.command("create")
def create(  # noqa: PLR0913 - a lease has this many fields
    name: Annotated[str, typer.Argument(help="Its name.")],
    hosts: HostCount = None,
    instances: Instances = None,
    vcpus: Vcpus = None,
    memory_mb: MemoryMb = None,
    disk_gb: DiskGb = None,
    together: Annotated[
        bool | None, typer.Option("--together/--apart", help="All parts on one host, or each on another.")
    ] = None,
    require: Require = None,
    start: Start = None,
    end: End = None,
    lasts: Annotated[str | None, typer.Option("--for", help="How long: 90m, 4h, 7d; or give --end.")] = None,
    remind: Remind = None,
    project: Annotated[str | None, typer.Option(help="Administrators: for whom. [default: yours]")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Book hosts (--hosts) or parts of hosts (--instances). Without --start it begins now.

    When too few are free, the answer names those that are, and the next free slot of that length.

    Example: homeostat lease create build-farm --hosts 2 --start 2026-12-24T08:00 --for 4h
    """
    with errors_in_one_line():
        wanted = [
            *([] if hosts is None else [_hosts(hosts)]),
            *([] if instances is None else [_slots(instances, vcpus, memory_mb, disk_gb, together)]),
        ]
        if not wanted:
            raise BadInput("--hosts", None, "--hosts, --instances, or both")
        if require is not None:
            wanted = [each | {"resource_properties": require} for each in wanted]
        given = {
            "name": name,
            "project": project,
            "starts_at": _moment("--start", start),
            "ends_at": _moment("--end", end),
            "for_s": None if lasts is None else parse_duration("--for", lasts).total_seconds(),
            "before_end_at": _moment("--remind", remind),
            "reservations": wanted,
        }
        if (end is None) == (lasts is None):
            raise BadInput("--end", end, "one of --end and --for")
    body = {field: value for field, value in given.items() if value is not None}
    _show(ask(directory, "POST", "leases", body=body), as_json)


@commands.command("set")
def change(  # noqa: PLR0913 - a lease has this many fields
    lease: LeaseArgument,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    start: Start = None,
    end: End = None,
    extend: Annotated[str | None, typer.Option("--extend", help="End so much later: 30m, 2h, 7d.")] = None,
    remind: Remind = None,
    hosts: HostCount = None,
    instances: Instances = None,
    require: Require = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given and leave the rest; all of it or nothing. What conflicts is named.

    Example: homeostat lease set build-farm --extend 2h
    """
    there = ask(directory, "GET", "leases", lease)
    with errors_in_one_line():
        if end is not None and extend is not None:
            raise BadInput("--extend", extend, "--extend or --end, not both")
        ends_at = _moment("--end", end)
        if extend is not None:
            later = datetime.fromisoformat(there["ends_at"]) + parse_duration("--extend", extend)
            ends_at = later.isoformat()
        given = {
            "name": name,
            "starts_at": _moment("--start", start),
            "ends_at": ends_at,
            "before_end_at": _moment("--remind", remind),
            "reservations": _changes(there, hosts, instances, require) or None,
        }
    body = {field: value for field, value in given.items() if value is not None}
    _show(ask(directory, "PATCH", "leases", there["id"], body=body), as_json)


@commands.command("rm")
def rm(lease: LeaseArgument, directory: Directory = None) -> None:
    """Delete a lease, also one that runs; its hosts are free then. Example: homeostat lease rm build-farm"""
    ask(directory, "DELETE", "leases", lease)
    print(f"Lease {lease} deleted.")


@commands.command("ack")
def acknowledge(lease: LeaseArgument, directory: Directory = None, as_json: AsJson = False) -> None:
    """Take note of the moves of a lease: its flag `resources_changed` is cleared. What is missing stays so.

    Example: homeostat lease ack build-farm
    """
    _show(ask(directory, "POST", "leases", lease, "ack"), as_json)


@commands.command("explain")
def explain(lease: LeaseArgument, directory: Directory = None, as_json: AsJson = False) -> None:
    """Why a lease misses hosts, or would if one fails: who has them when, and the smallest change that helps.

    Example: homeostat lease explain build-farm
    """
    answer = ask(directory, "GET", "leases", lease, "explain")
    if as_json:
        show_json(answer)
        return
    for sentence in answer["sentences"]:
        print(_local_times(sentence))
    rows = [
        {
            "host": each["host"],
            "reserved_by": each["lease"] or "another project",
            "from": local_minute(each["starts_at"]),
            "to": local_minute(each["ends_at"]),
            "moves": "can move" if each["can_move"] else "stays",
        }
        for found in answer["reservations"]
        for each in found["competitors"]
    ]
    if rows:
        print()
        show_table(("host", "reserved_by", "from", "to", "moves"), rows, "")


def local_minute(at: str | None) -> str:
    """The API's time in the terminal's own zone, to the minute."""
    return "" if not at else datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")


_UTC_MINUTE = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b")


def _local_times(sentence: str) -> str:
    """The moments in a sentence of the API, which are UTC, in the terminal's own zone."""
    return _UTC_MINUTE.sub(lambda found: local_minute(f"{found[0]}+00:00"), sentence)


def _moment(field: str, text: str | None) -> str | None:
    """A time, or a duration from now."""
    if text is None:
        return None
    if text[-1:] in "smhd" and text[:-1].isdigit():
        return (datetime.now(UTC) + parse_duration(field, text)).isoformat()
    try:
        return parse_time(field, text).isoformat()
    except BadInput as error:
        raise BadInput(field, text, f"{error.accepted}, or 2h for two hours from now") from None


def _hosts(text: str) -> dict[str, Any]:
    least, dash, most = text.partition("-")
    if not least.isdigit() or (dash and not most.isdigit()):
        raise BadInput("--hosts", text, "a number, or two as 1-3")
    return {"resource_type": "physical:host", "min": int(least), "max": int(most or least)}


def _slots(
    amount: int, vcpus: int | None, memory_mb: int | None, disk_gb: int | None, together: bool | None
) -> dict[str, Any]:
    for option, value in (("--vcpus", vcpus), ("--memory-mb", memory_mb)):
        if value is None:
            raise BadInput(option, None, "how much each of --instances has")
    return {
        "resource_type": "virtual:instance",
        "amount": amount,
        "vcpus": vcpus,
        "memory_mb": memory_mb,
        "disk_gb": disk_gb or 0,
        "affinity": together,
    }


def _changes(there: Answer, hosts: str | None, instances: int | None, require: str | None) -> list[Answer]:
    """The changes of its reservations, each found by its type, of which the lease must have one."""
    made: dict[str, Answer] = {}
    for option, kind, value in (
        ("--hosts", "physical:host", None if hosts is None else _hosts(hosts)),
        ("--instances", "virtual:instance", None if instances is None else {"amount": instances}),
    ):
        if value is None:
            continue
        rows = [each for each in there["reservations"] if each["resource_type"] == kind]
        if len(rows) != 1:
            raise BadInput(option, hosts or instances, f"a lease with one {kind}; this has {len(rows)}")
        value.pop("resource_type", None)
        made[rows[0]["id"]] = {"id": rows[0]["id"], **value}
    if require is not None:
        for row in there["reservations"]:
            made.setdefault(row["id"], {"id": row["id"]})["resource_properties"] = require
    return list(made.values())


def _row(row: Answer) -> Answer:
    health = f"missing {row['missing']}" if row["missing"] else row["health"]
    outlook = "" if row["outlook"] == "unknown" or row["missing"] else row["outlook"].replace("_", " ")
    return row | {
        "id": row["id"][:8],
        "health": ", ".join(filter(None, (health, outlook))),
        "hosts": ", ".join(row["hosts"]),
        "from": _short(row["starts_at"]),
        "to": _short(row["ends_at"]),
    }


def _short(at: str) -> str:
    """As `Sep 21 11:00`, with the year when it is not this one: eighty columns are few."""
    moment = datetime.fromisoformat(at).astimezone()
    year = "" if moment.year == datetime.now(UTC).astimezone().year else f" {moment.year}"
    return f"{moment:%b} {moment.day}{year} {moment:%H:%M}"


def _show(answer: Answer, as_json: bool) -> None:
    if as_json:
        show_json(answer)
        return
    show_answer(answer, False, _for_people)
    print()
    places = [
        {
            "reservation": each["id"][:8],
            "of": _wanted(each),
            "status": each["status"],
            "host": place["host"] or "missing",
            "since": local_minute(place["since_at"]),
            "reason": place["reason"],
        }
        for each in answer["reservations"]
        for place in each["allocations"]
    ]
    show_table(("reservation", "of", "status", "host", "since", "reason"), places, "No host is reserved.")


def _wanted(row: Answer) -> str:
    if row["resource_type"] == "physical:host":
        least, most = row["min"], row["max"]
        count = f"{most}" if least == most else f"{least} to {most}"
        return f"{count} {'host' if most == 1 else 'hosts'}"
    size = f"{row['vcpus']} vcpus, {row['memory_mb']} MB, {row['disk_gb']} GB"
    kept = {True: ", together", False: ", apart", None: ""}[row["affinity"]]
    return f"{row['amount']} of {size}{kept}"


def _for_people(row: Answer) -> Answer:
    changed = any(each["resources_changed"] for each in row["reservations"])
    flags = [
        word
        for word, is_set in (
            ("degraded", row["degraded"]),
            ("missing_resources", row["missing"]),
            ("resources_changed", changed),
        )
        if is_set
    ]
    start, end = (datetime.fromisoformat(row[name]) for name in ("starts_at", "ends_at"))
    shown = {
        "id": row["id"],
        "name": row["name"],
        "project": row["project"],
        "user": row["user"],
        "status": row["status"],
        "flags": ", ".join(flags) or "none",
        "reason": row["reason"],
        "failed_hosts": ", ".join(row["failed_hosts"]),
        "outlook": row["outlook"].replace("_", " "),
        "why": row["outlook_reason"],
        "starts": local_minute(row["starts_at"]),
        "ends": f"{local_minute(row['ends_at'])} ({_length(end - start)})",
        "reminder": local_minute(row["before_end_at"]),
        "ended": local_minute(row["ended_at"]),
    }
    return {name: value for name, value in shown.items() if value}


def _length(length: timedelta) -> str:
    minutes = round(length.total_seconds() / 60)
    days, rest = divmod(minutes, 1440)
    parts = ((days, "d"), (rest // 60, "h"), (rest % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "less than 1 min"
