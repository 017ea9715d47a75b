"""homeostat subscription: who is told. homeostat notice: what they are told."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from homeostat.kernel.client import Client, Unreachable, segment
from homeostat.kernel.errors import BadInput
from homeostat.kernel.moments import duration, moment
from homeostat.kernel.terminal import BROKEN, errors_in_one_line, show_json, show_record, show_table, when

commands = typer.Typer(help="Who is told of faults, and where.", no_args_is_help=True)
notice_commands = typer.Typer(help="What was told, and what is being told.", no_args_is_help=True)
Directory = Annotated[Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")]
Name = Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes, 63 at most.")]
Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url", help="Where to POST, up to eight; doctor=URL or alertmanager=URL for their formats."
    ),
]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="Only these kinds of fault; may be repeated.")
]
Resources = Annotated[
    list[str] | None, typer.Option("--resource", help="Only what touches these; may be repeated.")
]
Severity = Annotated[
    str | None, typer.Option("--minimum-severity", help="critical, major, minor or warning.")
]
ExpiresIn = Annotated[str | None, typer.Option("--expires-in", help="Hear nothing after 90s, 15m, 2h, 7d.")]
ExpiresAt = Annotated[str | None, typer.Option("--expires-at", help="Hear nothing from this time on.")]

GroupBy = Annotated[str | None, typer.Option("--group-by", help="Tell together: none, kind, host or owner.")]
GroupWait = Annotated[
    int | None, typer.Option("--group-wait-ms", help="How long the first of a group waits for others.")
]

_FORMATS = ("json", "doctor", "alertmanager")
_COLUMNS = ("name", "project", "endpoints", "kinds", "minimum_severity", "expires", "key_id", "created")
_RETRY_S = 1.0


@commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the subscriptions. Example: homeostat subscription ls"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/subscriptions")
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_for_people(row) for row in answer["items"]], "nobody is told")


@commands.command("show")
def show(name: Name, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one subscription. Example: homeostat subscription show on-call"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", f"/subscriptions/{segment(name)}")
    if as_json:
        show_json(answer)
    else:
        show_record(_for_people(answer))


@commands.command("create")
def create(  # noqa: PLR0913 - a subscription has this many fields
    name: Name,
    url: Urls = None,
    project: Annotated[str | None, typer.Option(help="Whose faults; yours when absent.")] = None,
    kind: Kinds = None,
    resource: Resources = None,
    minimum_severity: Severity = None,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    group_by: GroupBy = None,
    group_wait_ms: GroupWait = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Subscribe. The secret that signs its notices is shown once, here, and what is wrong now.

    Without --url nobody is called: `homeostat notice tail` reads its notices.

    Example: homeostat subscription create pager --url https://pager.example/hook --project blue
    """
    with errors_in_one_line():
        body: dict[str, Any] = {
            "name": name,
            "endpoints": _endpoints(url or []),
            "kinds": kind or [],
            "resources": resource or [],
        }
        expires = _expires(expires_in, expires_at)
        optional: dict[str, Any] = {
            "project": project,
            "minimum_severity": minimum_severity,
            "expires_at": expires,
        }
        optional |= {"group_by": group_by, "group_wait_ms": group_wait_ms}
        body |= {field: value for field, value in optional.items() if value is not None}
        answer = Client.find(directory).call("POST", "/subscriptions", body)
    if as_json:
        show_json(answer)
    else:
        _show_made(answer)


@commands.command("set")
def change(  # noqa: PLR0913 - a subscription has this many fields
    name: Name,
    url: Urls = None,
    kind: Kinds = None,
    resource: Resources = None,
    minimum_severity: Severity = None,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="It never expires.")] = False,
    group_by: GroupBy = None,
    group_wait_ms: GroupWait = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given and leave the rest. A repeatable option replaces all that was there.

    Example: homeostat subscription set pager --expires-in 7d
    """
    with errors_in_one_line():
        expires = _expires(expires_in, expires_at)
        if no_expiry and expires is not None:
            raise BadInput("--no-expiry", "yes", "either --no-expiry or a time")
        client = Client.find(directory)
        there = client.call("GET", f"/subscriptions/{segment(name)}")
        body = {
            "endpoints": _endpoints(url)
            if url
            else [{"url": each["url"], "format": each["format"]} for each in there["endpoints"]],
            "kinds": kind or there["kinds"],
            "resources": resource or there["resources"],
            "minimum_severity": minimum_severity or there["minimum_severity"],
            "expires_at": None if no_expiry else expires or there["expires_at"],
            "group_by": group_by or there["group_by"],
            "group_wait_ms": there["group_wait_ms"] if group_wait_ms is None else group_wait_ms,
        }
        answer = client.call("PUT", f"/subscriptions/{segment(name)}", body)
    if as_json:
        show_json(answer)
    else:
        _show_made(answer)


@commands.command("rm")
def rm(name: Name, directory: Directory = None) -> None:
    """Remove a subscription. Example: homeostat subscription rm pager"""
    with errors_in_one_line():
        Client.find(directory).call("DELETE", f"/subscriptions/{segment(name)}")
    print(f"{name} is not told any more")


@commands.command("test")
def test(name: Name, directory: Directory = None, as_json: AsJson = False) -> None:
    """Send every endpoint a signed notice that says that nothing is wrong, now; exit code 1 when one is deaf.

    Example: homeostat subscription test pager
    """
    with errors_in_one_line():
        client = Client.find(directory)
        if sys.stderr.isatty():
            print(f"asking the endpoints of {name} ...", file=sys.stderr)
        answer = client.call("POST", f"/subscriptions/{segment(name)}/test")
    if as_json:
        show_json(answer)
    else:
        rows = [
            {**row, "status": row["status"] or "-", "took": f"{row['took_ms']:.1f} ms"}
            for row in answer["items"]
        ]
        columns = ("endpoint", "url", "format", "status", "took", "detail")
        show_table(columns, rows, "it has no URL: it reads the stream of notices")
    if not all(row["accepted"] for row in answer["items"]):
        raise SystemExit(BROKEN)


@notice_commands.command("ls")
def ls_notices(
    state: Annotated[
        str | None, typer.Option(help="pending, delivered, given_up or kept; all when absent.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List notices, newest first. Example: homeostat notice ls --state pending"""
    with errors_in_one_line():
        answer = Client.find(directory).call("GET", "/notices", state=state, limit=limit)
    if as_json:
        show_json(answer)
        return
    rows = [{**row, "queued": when(row["queued_at"])} for row in answer["items"]]
    show_table(("seq", "key", "project", "state", "attempts", "queued", "reason"), rows, "nobody was told")


@notice_commands.command("tail")
def tail(
    subscription: Annotated[
        str | None, typer.Option(help="Only this one's; all of yours when absent.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(min=0, help="Begin behind this seq; with the next when absent.")
    ] = None,
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with its seq.")] = False,
) -> None:
    """Print notices as they are queued, until Ctrl-C. A server that restarts is waited for; none is missed.

    Example: homeostat notice tail --since 0
    """
    with errors_in_one_line():
        try:
            _follow(Client.find(directory), subscription, since, as_json=as_json)
        except KeyboardInterrupt:
            return


def _follow(client: Client, subscription: str | None, place: int | None, *, as_json: bool) -> None:
    """For ever; Unreachable when it never began."""
    known = False
    while True:
        try:
            for seq, event, data in client.listen("/notices/stream", subscription=subscription, since=place):
                place, known = int(seq), True
                if event != "open":
                    _print_notice(seq, data, as_json=as_json)
        except Unreachable:
            if not known:
                raise
        print("the stream ended; asking again", file=sys.stderr)
        time.sleep(_RETRY_S)


def _print_notice(seq: str, data: str, *, as_json: bool) -> None:
    body = json.loads(data)
    if as_json:
        print(json.dumps({"seq": int(seq), **body}, ensure_ascii=False), flush=True)
        return
    fault = body["fault"]
    at = when(fault.get("cleared_at") or fault.get("raised_at"))
    words = (seq, at, body["transition"], fault["id"], fault.get("kind"), fault.get("about"))
    print("  ".join(str(word) for word in words if word), flush=True)


def _endpoints(urls: list[str]) -> list[dict[str, str]]:
    """`doctor=URL` is a URL with a format; a bare URL is told in our own."""
    made = []
    for text in urls:
        shape, equals, url = text.partition("=")
        known = bool(equals) and shape in _FORMATS
        made.append({"url": url, "format": shape} if known else {"url": text, "format": "json"})
    return made


def _expires(within: str | None, at: str | None) -> str | None:
    if within is not None and at is not None:
        raise BadInput("--expires-at", at, "either --expires-in or --expires-at")
    if within is not None:
        return (datetime.now(UTC) + duration("--expires-in", within)).isoformat()
    return None if at is None else moment("--expires-at", at).isoformat()


def _show_made(answer: dict[str, Any]) -> None:
    current = answer.pop("current", None)
    count = answer.pop("current_count", None)
    shown = _for_people(answer)
    if count is not None:
        shown["wrong_now"] = f"{count} faults" if count != 1 else "1 fault"
    show_record(shown)
    for notice in current or ():
        fault = notice["fault"]
        print(f"  {fault['id']}  {fault['kind']}  {fault['about']}: {fault['reason']}")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "kinds": ", ".join(row.get("kinds") or ()) or "all"}
    shown.pop("url", None)
    told = [
        each["url"] if each["format"] == "json" else f"{each['format']}={each['url']}"
        for each in shown["endpoints"]
    ]
    shown["endpoints"] = ", ".join(told) or "stream only"
    expires_at, expired = shown.pop("expires_at"), shown.pop("expired")
    shown["expires"] = "never" if expires_at is None else ("expired " if expired else "") + when(expires_at)
    shown["created"] = when(shown.pop("created_at"))
    return shown
