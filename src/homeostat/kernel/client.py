"""The command line's HTTP client: the standard library's, because it starts in no time.

It knows where the server is (HOMEOSTAT_URL, else client.json in the state directory) and who asks
(HOMEOSTAT_TOKEN, else client.json), and turns every answer that is not 2xx into the error that the server
meant.
A token that is given is the one that is used; the one of client.json goes to the server of client.json only.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from functools import cache
from pathlib import Path
from typing import Any

from homeostat.kernel import errors

TIMEOUT_S = 10.0
WARNING_HEADER = "Homeostat-Warning"
"""On every answer of a server that cannot write or hear: why, percent-encoded."""
STREAM_SILENCE_S = 60.0
"""A stream says something at least every 15 s."""
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy, whatever the environment says: it would get our token, and has no way to a loopback address."""


class Unreachable(errors.RetryLater):
    """No server answers there."""


def path_segment(text: str) -> str:
    """An id as one part of a path, whatever characters are in it. NotFound for what is no part: `` and `..`.

    A slash is refused, too: servers read it as the end of a part, whether it is quoted or not.
    """
    if text in ("", ".", "..") or "/" in text:
        raise errors.NotFound(f"nothing is called {text!r}; the lists (`ls`) show the names")
    return urllib.parse.quote(text, safe="")


def state_dir(given: Path | None = None) -> Path:
    """The state directory: what is given, else HOMEOSTAT_DIR, else .homeostat here."""
    return (given or Path(os.environ.get("HOMEOSTAT_DIR", ".homeostat"))).absolute()


def _say_nothing(_warning: str) -> None:
    """For callers that are no command."""


@cache  # each warning once in the life of a command
def warn(warning: str) -> None:
    """One line on stderr, before anything of the answer is shown."""
    print(f"homeostat: {warning}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Client:
    """One server and who we are to it. `warned` hears of a server that cannot write or hear."""

    url: str
    token: str
    warned: Callable[[str], None] = field(default=_say_nothing, compare=False, repr=False)

    @classmethod
    def find(cls, directory: Path | None = None) -> Client:
        """From the environment, else from client.json in the state directory."""
        url, token = os.environ.get("HOMEOSTAT_URL"), os.environ.get("HOMEOSTAT_TOKEN")
        if token == "":
            raise errors.BadInput(
                "HOMEOSTAT_TOKEN", "", "a token; unset it to use the one of the state directory"
            )
        if url and token:
            return cls(url.rstrip("/"), token, warn)
        if url:
            raise errors.BadInput("HOMEOSTAT_TOKEN", None, "a token for the server of HOMEOSTAT_URL")
        path = state_dir(directory) / "client.json"
        try:
            found = json.loads(path.read_text())
            return cls(found["url"], token or found["token"], warn)
        except FileNotFoundError:
            raise Unreachable(
                f"no server is known: {path} does not exist; start one with `homeostat up`, "
                "or set HOMEOSTAT_URL and HOMEOSTAT_TOKEN"
            ) from None
        except (json.JSONDecodeError, KeyError, TypeError):
            raise errors.CorruptState(
                f"{path}: not readable; start `homeostat up` again, or set HOMEOSTAT_URL"
            ) from None

    @classmethod
    def with_token_of(cls, url: str, token_file: Path) -> Client:
        """The server of a site, with the token in a file. BadInput names that file."""
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.BadInput(
                "server.token_file", str(token_file), f"a file with a token ({error})"
            ) from None
        if not token:
            raise errors.BadInput(
                "server.token_file", str(token_file), "a file with a token; this one is empty"
            )
        return cls(url.rstrip("/"), token)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | Sequence[str] | None],
        body: object = None,
    ) -> urllib.request.Request:
        wanted = {name: value for name, value in query.items() if value is not None}
        asked = urllib.parse.urlencode(wanted, doseq=True)
        url = f"{self.url}/api/v1{path}" + (f"?{asked}" if asked else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        return request

    def _hear_warning(self, headers: Message) -> None:
        warning = headers.get(WARNING_HEADER)
        if warning:
            self.warned(urllib.parse.unquote(warning))

    def listen(self, path: str, **query: str | int | None) -> Iterator[tuple[str, str, str]]:
        """The events of a stream as (id, event, data), until it ends; Unreachable when it breaks."""
        request = self._request("GET", path, query)
        try:
            with _opener.open(request, timeout=STREAM_SILENCE_S) as answer:
                self._hear_warning(answer.headers)
                fields: dict[str, str] = {}
                for raw in answer:
                    line = raw.decode().rstrip("\n")
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                        continue
                    if "event" in fields:
                        yield fields.get("id", ""), fields["event"], fields.get("data", "")
                    fields = {}
        except urllib.error.HTTPError as error:
            self._hear_warning(error.headers)
            raise _meant(error.code, error.read()) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(
                f"the stream from {self.url} broke ({getattr(error, 'reason', error)})"
            ) from None

    def call(
        self, method: str, path: str, body: object = None, **query: str | int | Sequence[str] | None
    ) -> Any:
        """The decoded answer of `/api/v1<path>`; a HomeostatError of the server's kind otherwise."""
        request = self._request(method, path, query, body)
        try:
            with _opener.open(request, timeout=TIMEOUT_S) as answer:
                self._hear_warning(answer.headers)
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            self._hear_warning(error.headers)
            raise _meant(error.code, error.read()) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(
                f"no server answers at {self.url} ({reason}); is `homeostat up` running?"
            ) from None


def _meant(status: int, body: bytes) -> errors.HomeostatError:
    try:
        told = json.loads(body)["error"]
        message = str(told["message"])
    except (ValueError, KeyError, TypeError):
        return errors.GiveUp(f"the server answered {status}")
    if told.get("field"):
        kind = errors.Conflict if status == 409 else errors.BadInput
        return kind(told["field"], told.get("value"), told.get("accepted") or message)
    kinds: dict[int, type[errors.HomeostatError]] = {
        404: errors.NotFound,
        401: errors.NotAllowed,
        403: errors.NotAllowed,
    }
    if status in kinds:
        return kinds[status](message)
    if status in (408, 429):
        return errors.RetryLater(message)
    return errors.StoreUnavailable(message) if status == 503 else errors.GiveUp(message)
