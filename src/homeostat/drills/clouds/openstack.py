"""Driver for a cloud by openstacksdk and its clouds.yaml. Imported only by who is about to use it: it is
heavy.

No call is made twice (no retries), and none outlives its time: each of its requests gets what is left of it.
One Openstack is one connection with its own token, as each command of a person would have.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, assert_never

import requests
from keystoneauth1 import exceptions as auth_errors
from keystoneauth1.session import Session
from openstack import exceptions
from openstack.config import OpenStackConfig
from openstack.config.loader import SECURE_FILES
from openstack.connection import Connection

from homeostat.drills.actions import CloudObjectKind
from homeostat.drills.clouds.connection import SILENCE_S, CloudObjectRequest, CloudObjectState, CloudToken
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError, NotFound, RetryLater

FLAVOR = {"disk": 1, "vcpus": 1}
"""GiB and cores, as the test specification of OPNFV makes its own."""
VOLUME_GIB = 1
TAG = "homeostat"
_SAID_MAX = 300
_SERVICES: dict[CloudObjectKind, str] = {
    "image": "image",
    "flavor": "compute",
    "server": "compute",
    "network": "network",
    "router": "network",
    "volume": "block-storage",
}
_AGAIN = (408, 425, 429)
"""Client errors by number that are none."""
_NOWHERE = (exceptions.ConfigException, exceptions.EndpointNotFound, auth_errors.EndpointNotFound)
"""The catalogue has no such service."""
for _name in ("keystoneauth", "openstack"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # what goes wrong is said by who asked
_call = threading.local()
"""Of the call that this thread makes: when it ends, and whether its driver was closed meanwhile."""


class _Bounded(Session):
    """A session whose every request, one for a token as well, ends with the call that it is part of."""

    def request(self, url: str, method: str, *words: Any, **named: Any) -> requests.Response:
        left_s = _call.end_s - time.monotonic()
        if left_s <= 0 or _call.closed.is_set():
            raise auth_errors.ConnectTimeout(f"no time left for {method} {url}")
        named["timeout"] = min(left_s, SILENCE_S, named.get("timeout") or SILENCE_S)
        return super().request(url, method, *words, **named)


def _told(error: Exception) -> HomeostatError:
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    if status == requests.codes.not_found:
        return NotFound(_line(error))
    final = isinstance(status, int) and 400 <= status < 500 and status not in _AGAIN
    return GiveUp(_line(error)) if final or isinstance(error, _NOWHERE) else RetryLater(_line(error))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, exceptions.SDKException | auth_errors.ClientException | OSError):
        text = f"an answer that is none ({type(error).__name__}: {text})"
    return text if len(text) <= _SAID_MAX else text[: _SAID_MAX - 3] + "..."


def verified_by(cloud: SiteCloud) -> tuple[bool, Path | None]:
    """`verify` and `cacert` of its clouds.yaml, as every request to it takes them. BadInput."""
    with connected(cloud) as connection:
        verify, _ = connection.config.get_requests_verify_args()
    return bool(verify), Path(verify) if isinstance(verify, str) else None


def connected(cloud: SiteCloud) -> Connection:
    """Without a request yet. BadInput when its clouds.yaml does not have it."""
    file, secure = cloud.clouds_file, cloud.secure_file
    try:
        config = OpenStackConfig(
            config_files=[str(file)] if file else None,
            secure_files=[str(secure), *SECURE_FILES] if secure else None,
            load_envvars=False,
            session_constructor=_Bounded,
        )
        region = config.get_one(cloud=cloud.name)
        region.config |= {"connect_retries": 0, "status_code_retries": 0}
        return Connection(config=region)
    except (exceptions.ConfigException, OSError) as error:
        raise BadInput("cloud.name", cloud.name, f"a cloud of its clouds.yaml ({_line(error)})") from None


class Openstack:
    """The driver. Made without a request; a token is got with the first call."""

    def __init__(self, cloud: SiteCloud) -> None:
        self._cloud, self._closed = connected(cloud), threading.Event()

    @contextmanager
    def _within(self, within_s: float) -> Iterator[None]:
        """What is raised here is one of ours: NotFound, GiveUp, RetryLater."""
        _call.end_s, _call.closed = time.monotonic() + within_s, self._closed
        try:
            yield
        except Exception as error:  # of an answer that is none it raises what its code meets
            raise _told(error) from error

    def token(self, within_s: float) -> CloudToken:
        with self._within(within_s):
            session = self._cloud.session
            token, project_id = str(session.get_token() or ""), str(session.get_project_id() or "")
            # Some ways to log in know of no end.
            get_access = getattr(session.auth, "get_access", None)
            expires = get_access(session).expires if get_access is not None else None
            return CloudToken(token, project_id, None if expires is None else float(expires.timestamp()))

    def lacks(self, what: CloudObjectKind, within_s: float) -> str | None:
        with self._within(within_s):
            service = _SERVICES[what]
            return None if self._cloud.has_service(service) else f"the cloud has no {service} service"

    def create(self, wanted: CloudObjectRequest, within_s: float) -> str:
        with self._within(within_s):
            return str(self._made(wanted).id)

    def _made(self, wanted: CloudObjectRequest) -> Any:
        cloud, words = self._cloud, {"name": wanted.name, "description": wanted.described}
        match wanted.what:
            case "image":
                return self._image(wanted)
            case "flavor":
                return cloud.compute.create_flavor(**words, **FLAVOR, ram=wanted.ram_mib)
            case "server":
                return cloud.compute.create_server(
                    **words,
                    image_id=wanted.image,
                    flavor_id=wanted.flavor,
                    networks="none",
                    metadata={TAG: wanted.described},
                )
            case "network":
                return cloud.network.create_network(**words)
            case "router":
                return cloud.network.create_router(**words)
            case "volume":
                metadata = {TAG: wanted.described}
                return cloud.block_storage.create_volume(**words, size=VOLUME_GIB, metadata=metadata)
            case _:
                assert_never(wanted.what)

    def _image(self, wanted: CloudObjectRequest) -> Any:
        given = wanted.content
        file: Any = given.open("rb") if isinstance(given, Path) else BytesIO(given)
        with file as content:
            return self._cloud.image.create_image(
                wanted.name,
                data=content,
                disk_format="qcow2",
                container_format="bare",
                tags=[TAG],
                meta={TAG: wanted.described},
                allow_duplicates=True,
            )

    def state(self, what: CloudObjectKind, id: str, within_s: float) -> CloudObjectState:
        with self._within(within_s):
            found = getattr(self._proxy(what), f"get_{what}")(id)  # a flavor has no status
            fault = getattr(found, "fault", None) or {}
            return CloudObjectState(str(found.status), str(fault.get("message", "")))

    def delete(self, what: CloudObjectKind, id: str, within_s: float) -> None:
        with self._within(within_s):
            getattr(self._proxy(what), f"delete_{what}")(id, ignore_missing=False)

    def ids(self, what: CloudObjectKind, name: str, within_s: float) -> tuple[str, ...]:
        # A flavor cannot be asked for by name; of servers the name is a pattern.
        query = {} if what == "flavor" else {"name": name}
        with self._within(within_s):
            return tuple(str(each.id) for each in self._listed(what, query) if each.name == name)

    def list(self, what: CloudObjectKind, within_s: float) -> int:
        with self._within(within_s):
            return sum(1 for _ in self._listed(what, {"paginated": False}))

    def _proxy(self, what: CloudObjectKind) -> Any:
        """The service of such things; its methods are named after them."""
        return getattr(self._cloud, _SERVICES[what].replace("-", "_"))

    def _listed(self, what: CloudObjectKind, query: dict[str, Any]) -> Iterable[Any]:
        found: Iterable[Any] = getattr(self._proxy(what), f"{what}s")(**query)
        return found

    def close(self) -> None:
        """A call that goes on in another thread ends with the request that it is at."""
        self._closed.set()
        self._cloud.close()
