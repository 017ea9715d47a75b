"""A cloud as its users see it, for the operations of a drill: its interface, and the connection to the
site's own.

Every call of the interface blocks and ends within its time, with RetryLater when nobody knows what became of
it (no answer, an error of the service), GiveUp when the cloud says no, NotFound when there is no such thing.

The heavy library (openstacksdk) is imported only when a driver is opened. Each blocking call has a thread of
its own, so that none can hold up the run or the end of the program. A thread cannot be ended: who gives a
call up does not wait for it; `Calls.ended` waits for those that were given up, because what they ask for may
still be made. The token is got once for a run; monitors ask with it, so that what they see of a service is
not keystone's part of it (a token lives for hours, a run for minutes), and it is never written but into the
configuration of a monitor. Sites that name no image get a valid, empty qcow2 of 1 MiB to a guest; nothing
boots from it.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from homeostat.drills.actions import CloudObjectKind
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput, GiveUp, NotFound, RetryLater

SILENCE_S = 60.0
"""A request that is not answered for so long has no answer, whatever time its operation has left."""
Reached = Literal["active", "failed", "not yet"]
_ACTIVE = ("active", "available")
"""A volume is available, all else active; in whatever case the service writes it."""
_FAILED = ("error", "killed", "deleted", "pending_delete", "deactivated")


@dataclass(frozen=True, slots=True)
class CloudObjectRequest:
    """One thing to make. A server is made of `image` and `flavor`, by id, and without a network.

    `ram_mib`: of a flavor; it has a disk of 1 GiB and one core.
    """

    what: CloudObjectKind
    name: str
    described: str
    content: Path | bytes = b""
    """Of an image."""
    image: str = ""
    flavor: str = ""
    ram_mib: int = 512


@dataclass(frozen=True, slots=True)
class CloudObjectState:
    """The service's own word, and what it says about a failure."""

    word: str
    fault: str = ""

    @property
    def reached(self) -> Reached:
        """Whether it is active, or never will be."""
        word = self.word.lower()
        if word in _ACTIVE:
            return "active"
        return "failed" if word in _FAILED or word.startswith("error") else "not yet"


@dataclass(frozen=True, slots=True)
class CloudToken:
    """What a user asks with: for a project, empty for none, and until a Unix time, if keystone says so."""

    token: str = field(repr=False)
    project_id: str
    expires_s: float | None = None

    def outlasts(self, cloud: SiteCloud, needed_s: float, now_s: float) -> None:
        """GiveUp when it may end while it is used: the refusals after that would look like an outage."""
        if self.expires_s is not None and self.expires_s < now_s + needed_s:
            left = f"ends in {self.expires_s - now_s:.0f} s, the run may need {needed_s:.0f} s"
            remedy = "a longer expiration of tokens in keystone, or a shorter window.longest"
            raise GiveUp(f"cloud {cloud.name}: its token {left}; {remedy}")


class UserCloud(Protocol):
    """A user's own sight of a cloud."""

    def token(self, within_s: float) -> CloudToken:
        """The one that it asks with."""

    def lacks(self, what: CloudObjectKind, within_s: float) -> str | None:
        """Why there can be no such thing here: its service is not in the catalogue. Else None."""

    def create(self, wanted: CloudObjectRequest, within_s: float) -> str:
        """Ask for it once; its id."""

    def state(self, what: CloudObjectKind, id: str, within_s: float) -> CloudObjectState: ...

    def delete(self, what: CloudObjectKind, id: str, within_s: float) -> None:
        """Ask for its deletion once."""

    def ids(self, what: CloudObjectKind, name: str, within_s: float) -> tuple[str, ...]:
        """Everything of that very name in the list."""

    def list(self, what: CloudObjectKind, within_s: float) -> int:
        """The list as a user asks for it; how many its first page has."""

    def close(self) -> None: ...


_MAGIC = 0x514649FB
_VERSION = 3
_CLUSTER_BITS = 9
_CLUSTER = 1 << _CLUSTER_BITS
_VIRTUAL = 1 << 20
_HEADER_LENGTH = 104
_REFCOUNT_ORDER = 4
_L1_ENTRIES = _VIRTUAL // (_CLUSTER * (_CLUSTER // 8))
MADE_UP_IMAGE = "images are a made-up empty disk of 2 KiB: the site names no cloud.image_file"


def tiny_qcow2() -> bytes:
    """Four clusters: header, table of reference counts, one block of them, and the table of the disk."""
    at_refcounts, at_block, at_l1 = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
    header = struct.pack(
        ">IIQIIQIIQQIIQQQQII",
        *(_MAGIC, _VERSION, 0, 0, _CLUSTER_BITS, _VIRTUAL, 0),
        *(_L1_ENTRIES, at_l1, at_refcounts, 1, 0, 0),
        *(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH),
    )
    clusters = (
        header,
        struct.pack(">Q", at_block),
        struct.pack(">4H", 1, 1, 1, 1),
        b"",
    )
    return b"".join(each.ljust(_CLUSTER, b"\0") for each in clusters)


def open_cloud(cloud: SiteCloud) -> UserCloud:
    """A connection of its own; nothing is asked yet. It may take seconds: the library is heavy."""
    if find_spec("openstack") is None:
        raise BadInput("cloud", cloud.name, "`pip install 'homeostat[openstack]'`: openstacksdk is not here")
    from homeostat.drills.clouds.openstack import Openstack

    return Openstack(cloud)


def verified_by(cloud: SiteCloud) -> tuple[bool, Path | None]:
    """Whether its clouds.yaml wants certificates verified, and by which CAs; as ever without openstacksdk."""
    if find_spec("openstack") is None:
        return True, None
    from homeostat.drills.clouds.openstack import verified_by

    return verified_by(cloud)


def image_of(cloud: SiteCloud) -> Path | bytes:
    """What is uploaded as an image. BadInput when the site's file cannot be read."""
    if cloud.image_file is None:
        return tiny_qcow2()
    try:
        with cloud.image_file.open("rb"):
            return cloud.image_file
    except OSError as error:
        words = f"a disk image that can be read ({error.strerror})"
        raise BadInput("cloud.image_file", str(cloud.image_file), words) from None


T = TypeVar("T")
GRACE_S = 1.0
"""A call ends by itself at its time; so much later it is given up."""


class Calls:
    """The calls of one run."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    async def call(self, act: Callable[[float], T], within_s: float) -> T:
        """Its result; it is told its time. RetryLater when it is not over then; cancelled, it goes on."""
        if within_s <= 0:
            raise RetryLater("no time was left to ask")
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()  # a thread cannot be cancelled
        self._threads = {each for each in self._threads if each.is_alive()}
        asked = partial(act, within_s)
        thread = threading.Thread(target=_run, args=(asked, outcome), name="cloud call", daemon=True)
        self._threads.add(thread)
        thread.start()
        try:
            async with asyncio.timeout(within_s + GRACE_S):
                return await asyncio.wrap_future(outcome)
        except TimeoutError:
            raise RetryLater(f"no answer within {within_s:g} s") from None

    async def ended(self, within_s: float) -> bool:
        """Whether every call is over, those that were given up as well."""
        end_s = time.monotonic() + within_s
        for thread in tuple(self._threads):
            await asyncio.to_thread(thread.join, max(0.0, end_s - time.monotonic()))
        return not any(each.is_alive() for each in self._threads)


def _run(act: Callable[[], T], outcome: Future[T]) -> None:
    try:
        outcome.set_result(act())
    except Exception as error:
        outcome.set_exception(error)


TOKEN_HEADER = "X-Auth-Token"
TOKEN_WITHIN_S = 30.0
"""All requests to keystone."""


async def issue_token(cloud: SiteCloud, within_s: float = TOKEN_WITHIN_S) -> CloudToken:
    """A new token. BadInput for clouds.yaml and what is missing here, GiveUp when keystone gives none."""
    if cloud.clouds_file is not None and not cloud.clouds_file.is_file():
        raise BadInput("cloud.clouds_file", str(cloud.clouds_file), "a clouds.yaml that can be read")
    try:
        given = await Calls().call(lambda left_s: _request_token(cloud, left_s), within_s)
    except BadInput:
        raise
    except (GiveUp, NotFound, RetryLater) as error:
        remedy = f"try `{cloud.client} --os-cloud {cloud.name} token issue`"
        raise GiveUp(f"cloud {cloud.name}: keystone gave no token ({error}); {remedy}") from None
    if not given.token or not given.project_id:
        raise BadInput(
            "cloud.name", cloud.name, "a cloud with a project: it is what its services are asked for"
        )
    return given


def _request_token(cloud: SiteCloud, within_s: float) -> CloudToken:
    with closing(open_cloud(cloud)) as driver:
        return driver.token(within_s)
