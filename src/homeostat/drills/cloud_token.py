"""A token of the site's OpenStack, got once for a run by its own library and clouds.yaml.

Monitors ask with it, so that what they see of a service is not keystone's part of it (they reuse it: a token
lives for hours, a run for minutes). It is never written but into the configuration of a monitor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput, GiveUp

if TYPE_CHECKING:
    from keystoneauth1.session import Session

TOKEN_HEADER = "X-Auth-Token"
REQUEST_S = 10.0
"""One request to keystone."""
_WITHIN_S = 30.0
"""All of them."""
_TOLD = 200
"""So much of what the library says of a failure."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and the project it is for."""

    token: str = field(repr=False)
    project_id: str
    expires_s: float | None = None
    """Unix time at which keystone takes it no more; None when it did not say."""

    def outlasts(self, cloud: SiteCloud, needed_s: float, now_s: float) -> None:
        """GiveUp when it may end while it is used: the refusals after that would look like an outage."""
        if self.expires_s is not None and self.expires_s < now_s + needed_s:
            left = f"ends in {self.expires_s - now_s:.0f} s, the run may need {needed_s:.0f} s"
            remedy = "a longer expiration of tokens in keystone, or a shorter window.longest"
            raise GiveUp(f"cloud {cloud.name}: its token {left}; {remedy}")


async def issued_by(cloud: SiteCloud, request_s: float = REQUEST_S) -> Issued:
    """A new token; no request takes longer than `request_s`.

    BadInput for clouds.yaml and what is missing here, GiveUp when keystone gives none.
    """
    if cloud.clouds_file is not None and not cloud.clouds_file.is_file():
        raise BadInput("cloud.clouds_file", str(cloud.clouds_file), "a clouds.yaml that can be read")
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await asyncio.to_thread(_issued, cloud, request_s)
    except TimeoutError:
        raise GiveUp(f"cloud {cloud.name}: keystone gave no token within {_WITHIN_S:g} s") from None


def _expires_s(session: Session) -> float | None:
    """Of the token that it has; some ways to log in know of none."""
    get_access = getattr(session.auth, "get_access", None)
    expires = get_access(session).expires if get_access is not None else None
    return None if expires is None else float(expires.timestamp())


def _issued(cloud: SiteCloud, request_s: float) -> Issued:
    try:
        from keystoneauth1.exceptions import ClientException
        from openstack.config import OpenStackConfig
        from openstack.exceptions import ConfigException
        from yaml import YAMLError
    except ImportError:
        remedy = "openstacksdk, which is not installed here: pip install 'homeostat[openstack]'"
        raise BadInput("cloud", cloud.name, remedy) from None
    files = None if cloud.clouds_file is None else [str(cloud.clouds_file)]
    try:
        found = OpenStackConfig(config_files=files, load_envvars=False)
        session = found.get_one(cloud=cloud.name, api_timeout=request_s).get_session()
        token, project_id = session.get_token(), session.get_project_id()
        expires_s = _expires_s(session)
    except (ConfigException, YAMLError, OSError) as error:
        raise BadInput("cloud.name", cloud.name, f"a cloud of its clouds.yaml ({error})") from None
    except ClientException as error:
        why = str(error)[:_TOLD]
        remedy = f"try `{cloud.client} --os-cloud {cloud.name} token issue`"
        raise GiveUp(f"cloud {cloud.name}: keystone gave no token ({why}); {remedy}") from None
    if not token or not project_id:
        raise BadInput(
            "cloud.name", cloud.name, "a cloud with a project: it is what its services are asked for"
        )
    return Issued(token, project_id, expires_s)
