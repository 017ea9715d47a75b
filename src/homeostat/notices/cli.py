"""The commands `homeostat subscription`, `homeostat notice` and `homeostat silence`.

Consumers, notices with their state, and what is muted for a time.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from homeostat.kernel import terminal
from homeostat.kernel.cli import Answer, AsJson, Directory, ask, show_answer, show_items
from homeostat.kernel.client import Client, Unreachable, path_segment
from homeostat.kernel.errors import BadInput

subscription_commands = typer.Typer(
    help="Subscriptions: where notices about faults are sent.", no_args_is_help=True
)
notice_commands = typer.Typer(help="Notices: delivered, pending or given up.", no_args_is_help=True)
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
ExpiresIn = Annotated[
    str | None, typer.Option("--expires-in", help="End the subscription after 90s, 15m, 2h, 7d.")
]
ExpiresAt = Annotated[str | None, typer.Option("--expires-at", help="End the subscription at this time.")]

GroupBy = Annotated[str | None, typer.Option("--group-by", help="Send together: none, kind, host or owner.")]
GroupWait = Annotated[
    int | None,
    typer.Option("--group-wait-ms", help="Milliseconds that the first notice of a group waits for others."),
]

_FORMATS = ("json", "doctor", "alertmanager")
_COLUMNS = ("name", "project", "endpoints", "kinds", "minimum_severity", "expires", "key_id", "created")
_RETRY_S = 1.0


@subscription_commands.command("ls")
def ls(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the subscriptions. Example: homeostat subscription ls"""
    answer = ask(directory, "GET", "subscriptions")
    show_items(answer, as_json, _COLUMNS, "No subscriptions.", _for_people)


@subscription_commands.command("show")
def show(name: Name, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one subscription. Example: homeostat subscription show on-call"""
    show_answer(ask(directory, "GET", "subscriptions", name), as_json, _for_people)


@subscription_commands.command("create")
def create(  # noqa: PLR0913 - a subscription has this many fields
    name: Name,
    url: Urls = None,
    project: Annotated[
        str | None, typer.Option(help="The project whose faults are sent; without it, yours.")
    ] = None,
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
    """Create a subscription. Shows the secret that signs its notices, this once, and the open faults.

    Without --url nothing is sent; read its notices with `homeostat notice tail`.

    Example: homeostat subscription create pager --url https://pager.example/hook --project blue
    """
    with terminal.errors_in_one_line():
        given: dict[str, Any] = {
            "name": name,
            "endpoints": _endpoints(url or []),
            "kinds": kind or [],
            "resources": resource or [],
            "project": project,
            "minimum_severity": minimum_severity,
            "expires_at": _expires(expires_in, expires_at),
            "group_by": group_by,
            "group_wait_ms": group_wait_ms,
        }
    body = {field: value for field, value in given.items() if value is not None}
    answer = ask(directory, "POST", "subscriptions", body=body)
    _show_made(answer, as_json)


@subscription_commands.command("set")
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
    with terminal.errors_in_one_line():
        expires = _expires(expires_in, expires_at)
        if no_expiry and expires is not None:
            raise BadInput("--no-expiry", "yes", "either --no-expiry or a time")
        client = Client.find(directory)
        there = client.call("GET", f"/subscriptions/{path_segment(name)}")
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
        answer = client.call("PUT", f"/subscriptions/{path_segment(name)}", body)
    _show_made(answer, as_json)


@subscription_commands.command("rm")
def rm(name: Name, directory: Directory = None) -> None:
    """Remove a subscription. Example: homeostat subscription rm pager"""
    ask(directory, "DELETE", "subscriptions", name)
    print(f"Subscription {name} removed.")


@subscription_commands.command("test")
def test(name: Name, directory: Directory = None, as_json: AsJson = False) -> None:
    """Send a signed test notice to every endpoint. Exits 1 when one does not accept it.

    Example: homeostat subscription test pager
    """
    if sys.stderr.isatty():
        print(f"sending a test notice to the endpoints of {name} ...", file=sys.stderr)
    answer = ask(directory, "POST", "subscriptions", name, "test")
    columns = ("endpoint", "url", "format", "status", "took", "detail")
    show_items(answer, as_json, columns, "No URL: the subscription reads the stream of notices.", _tried)
    if not all(row["accepted"] for row in answer["items"]):
        raise SystemExit(terminal.BROKEN)


def _tried(row: Answer) -> Answer:
    return {**row, "status": row["status"] or "-", "took": f"{row['took_ms']:.1f} ms"}


@notice_commands.command("ls")
def ls_notices(
    state: Annotated[
        str | None, typer.Option(help="pending, delivered, given_up or kept (held back by a silence).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 100,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List notices, newest first. Example: homeostat notice ls --state pending"""
    answer = ask(directory, "GET", "notices", state=state, limit=limit)
    columns = ("seq", "key", "project", "state", "attempts", "queued", "reason")
    show_items(
        answer,
        as_json,
        columns,
        "No notices.",
        lambda row: row | {"queued": terminal.local_time(row["queued_at"])},
    )


@notice_commands.command("tail")
def tail(
    subscription: Annotated[
        str | None, typer.Option(help="Only of this subscription; without it, all of yours.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(min=0, help="Start after this seq; without it, with the next notice.")
    ] = None,
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with its seq.")] = False,
) -> None:
    """Print notices as they are queued, until Ctrl-C. Reconnects when the server restarts; misses none.

    Example: homeostat notice tail --since 0
    """
    with terminal.errors_in_one_line():
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
        print("stream ended; reconnecting", file=sys.stderr)
        time.sleep(_RETRY_S)


def _print_notice(seq: str, data: str, *, as_json: bool) -> None:
    body = json.loads(data)
    if as_json:
        print(json.dumps({"seq": int(seq), **body}, ensure_ascii=False), flush=True)
        return
    fault = body["fault"]
    at = terminal.local_time(fault.get("cleared_at") or fault.get("raised_at"))
    words = (seq, at, body["transition"], fault["id"], fault.get("kind"), fault.get("about"))
    print("  ".join(str(word) for word in words if word), flush=True)


def _endpoints(urls: list[str]) -> list[dict[str, str]]:
    """`doctor=URL` is a URL with a format; a bare URL takes our own format."""
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
        return (datetime.now(UTC) + terminal.parse_duration("--expires-in", within)).isoformat()
    return None if at is None else terminal.parse_time("--expires-at", at).isoformat()


def _show_made(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        terminal.show_json(answer)
        return
    current = answer.pop("current", None)
    count = answer.pop("current_count", None)
    shown = _for_people(answer)
    if count is not None:
        shown["open_faults"] = f"{count} faults" if count != 1 else "1 fault"
    terminal.show_record(shown)
    for notice in current or ():
        fault = notice["fault"]
        print(f"  {fault['id']}  {fault['kind']}  {fault['about']}: {fault['reason']}")


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "kinds": ", ".join(row.get("kinds") or ()) or "all"}
    shown.pop("url", None)
    targets = [
        each["url"] if each["format"] == "json" else f"{each['format']}={each['url']}"
        for each in shown["endpoints"]
    ]
    shown["endpoints"] = ", ".join(targets) or "stream only"
    expires_at, expired = shown.pop("expires_at"), shown.pop("expired")
    shown["expires"] = (
        "never" if expires_at is None else ("expired " if expired else "") + terminal.local_time(expires_at)
    )
    shown["created"] = terminal.local_time(shown.pop("created_at"))
    return shown


silence_commands = typer.Typer(help="Mute notifications for a time.", no_args_is_help=True)
SilenceId = Annotated[str, typer.Argument(help="As `homeostat silence ls` shows it.")]


@silence_commands.command("create")
def create_silence(  # noqa: PLR0913 - one option a scope
    reason: Annotated[str, typer.Option(help="Why. People whose notices are held back can read it.")],
    lasts: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h, 1d.")],
    host: Annotated[str | None, typer.Option(help="The host, and what ran there.")] = None,
    zone: Annotated[str | None, typer.Option(help="Every host of fleet.hosts in this zone.")] = None,
    resource: Annotated[str | None, typer.Option(help="One service or guest.")] = None,
    kind: Annotated[str | None, typer.Option(help="A kind of fault, such as agent_lost.")] = None,
    owner: Annotated[str | None, typer.Option(help="Mute faults of this project.")] = None,
    project: Annotated[str | None, typer.Option(help="Mute only subscriptions of this project.")] = None,
    begins: Annotated[str | None, typer.Option(help="Start time; without it, now.")] = None,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Mute notifications for a time. When several scopes are given, all must match.

    Example: homeostat silence create --host n2 --for 2h --reason "new memory"
    """
    named = {"host": host, "zone": zone, "resource": resource, "kind": kind, "owner": owner}
    with terminal.errors_in_one_line():
        begins_at = None if begins is None else terminal.parse_time("--begins", begins).isoformat()
        named |= {"project": project, "begins_at": begins_at}
        body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        body |= {"reason": reason, "for_s": terminal.parse_duration("--for", lasts).total_seconds()}
    show_answer(ask(directory, "POST", "silences", body=body), as_json, _silence_for_people)


@silence_commands.command("ls")
def ls_silences(
    over: Annotated[bool, typer.Option("--all", help="Include those that are over.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """List the silences that are not over. Example: homeostat silence ls"""
    answer = ask(directory, "GET", "silences", all="true" if over else "false")
    columns = ("id", "state", "scope", "project", "reason", "by", "ends", "kept_back")
    show_items(answer, as_json, columns, "No silences.", _silence_for_people)


@silence_commands.command("show")
def show_silence(silence: SilenceId, directory: Directory = None, as_json: AsJson = False) -> None:
    """Show one silence. Example: homeostat silence show s-0123456789ab"""
    show_answer(ask(directory, "GET", "silences", silence), as_json, _silence_for_people)


@silence_commands.command("rm")
def rm_silence(silence: SilenceId, directory: Directory = None) -> None:
    """End a silence now. Held-back notices of faults that are still open are sent.

    Example: homeostat silence rm s-0123456789ab
    """
    ask(directory, "DELETE", "silences", silence)
    print(f"Silence {silence} ended.")


def _silence_for_people(row: dict[str, Any]) -> dict[str, Any]:
    hidden = ("host", "zone", "resource", "kind", "owner", "begins_at", "ends_at")
    shown = {name: value for name, value in row.items() if name not in hidden}
    return shown | {
        "begins": terminal.local_time(row["begins_at"]),
        "ends": terminal.local_time(row["ends_at"]),
    }
