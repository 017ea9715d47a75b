"""One question to a service, asked once or until a deadline: operations, and whether something serves.

Not a monitor: nothing is concluded about an outage from here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Container
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import aiohttp

from homeostat.drills.planning.trusting import SYSTEM, Trust, Verified
from homeostat.drills.site import address_of
from homeostat.kernel.errors import BadInput

ONCE_WITHIN_S = 2.0
_AGAIN_S = 0.1
_PLAIN = range(200, 400)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it. `made`: the URL of a thing that now exists because of it."""

    ok: bool
    seen: str
    made: str | None = None


class Asker:
    """Asks by HTTP or by a connection; `async with`. No redirects, no proxy, a new connection each time.

    `trust`: by which CAs and names certificates are verified.
    """

    def __init__(self, trust: Trust = SYSTEM) -> None:
        self.trust = trust
        self._contexts: dict[Verified, ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=16), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def serves(self, url: str) -> Asked:
        """Whether something answers there now: any status below 400, or a connection that stands."""
        if url.startswith("tcp:"):
            return await self._connects(url)
        return await self.once("GET", url, _PLAIN, ONCE_WITHIN_S)

    async def once(self, method: str, url: str, expected: Container[int], within_s: float) -> Asked:
        """One request."""
        assert self._session is not None
        try:
            async with asyncio.timeout(within_s):
                named = self._verified(url) if url.startswith("https:") else {}
                async with self._session.request(method, url, allow_redirects=False, **named) as answer:
                    await answer.read()
                    where = answer.headers.get("Location")
                    made = urljoin(url, where) if where and answer.status == 201 else None
                    return Asked(answer.status in expected, str(answer.status), made)
        except TimeoutError:
            return Asked(False, f"no answer within {within_s:g} s")
        except aiohttp.ClientConnectorCertificateError as error:
            return Asked(False, f"its certificate cannot be verified ({_why(error.certificate_error)})")
        except aiohttp.ClientConnectorSSLError as error:  # its numbers are not those of the system
            return Asked(False, f"TLS with it fails ({_why(error.os_error)})")
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            return Asked(False, os.strerror(number).lower() if number else str(error.os_error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Asked(False, str(error) or type(error).__name__)

    def _verified(self, url: str) -> dict[str, Any]:
        """The same name for SNI, certificate and `Host`, as with a monitor."""
        verified = self.trust.of(url)
        if verified not in self._contexts:
            self._contexts[verified] = verified.context()
        words: dict[str, Any] = {"ssl": self._contexts[verified]}
        if verified.server_name is None:
            return words
        host = f"{verified.server_name}:{address_of(url)[1]}"
        return words | {"server_hostname": verified.server_name, "headers": {"Host": host}}

    async def until(self, method: str, url: str, expected: Container[int], within_s: float) -> Asked:
        """Again and again until it answers as expected; else the last answer when the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while True:
            asked = await self.once(method, url, expected, max(0.001, end - loop.time()))
            if asked.ok or loop.time() + _AGAIN_S >= end:
                return asked
            await asyncio.sleep(_AGAIN_S)

    async def _connects(self, url: str) -> Asked:
        try:
            host, port = address_of(url)
        except ValueError as error:
            raise BadInput("url", url, str(error)) from None
        try:
            async with asyncio.timeout(ONCE_WITHIN_S):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return Asked(True, "accepts connections")
        except TimeoutError:
            return Asked(False, f"no connection within {ONCE_WITHIN_S:g} s")
        except OSError as error:
            return Asked(False, os.strerror(error.errno).lower() if error.errno else str(error))


def _why(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return error.verify_message
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case _:
            return str(error)
