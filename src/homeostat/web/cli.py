"""homeostat console: a link into the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homeostat.kernel.client import Client
from homeostat.kernel.terminal import errors_in_one_line, show_json, when


def console(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="State directory of `homeostat up`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for machines.")] = False,
) -> None:
    """Print a link that opens the dashboard, once, within a minute. Example: homeostat console"""
    with errors_in_one_line():
        client = Client.find(directory)
        answer = client.call("POST", "/console-links")
    url = client.url + answer["path"]
    if as_json:
        show_json({**answer, "url": url})
    else:
        print(url)
        print(f"works once, until {when(answer['expires_at'])}")
