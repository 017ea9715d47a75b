"""A token of the site's OpenStack, got once for a run by the driver of its operations.

Monitors ask with it, so that what they see of a service is not keystone's part of it (they reuse it: a token
lives for hours, a run for minutes). It is never written but into the configuration of a monitor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from homeostat.drills.clouds.calls import Calls
from homeostat.drills.clouds.opening import opened
from homeostat.drills.clouds.port import Token
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput, GiveUp, NotFound, RetryLater

TOKEN_HEADER = "X-Auth-Token"
WITHIN_S = 30.0
"""All requests to keystone."""


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


async def issued_by(cloud: SiteCloud, within_s: float = WITHIN_S) -> Issued:
    """A new token. BadInput for clouds.yaml and what is missing here, GiveUp when keystone gives none."""
    if cloud.clouds_file is not None and not cloud.clouds_file.is_file():
        raise BadInput("cloud.clouds_file", str(cloud.clouds_file), "a clouds.yaml that can be read")
    try:
        given = await Calls().call(lambda left_s: _asked(cloud, left_s), within_s)
    except BadInput:
        raise
    except (GiveUp, NotFound, RetryLater) as error:
        remedy = f"try `{cloud.client} --os-cloud {cloud.name} token issue`"
        raise GiveUp(f"cloud {cloud.name}: keystone gave no token ({error}); {remedy}") from None
    if not given.token or not given.project_id:
        raise BadInput(
            "cloud.name", cloud.name, "a cloud with a project: it is what its services are asked for"
        )
    return Issued(given.token, given.project_id, given.expires_s)


def _asked(cloud: SiteCloud, within_s: float) -> Token:
    driver = opened(cloud)
    try:
        return driver.token(within_s)
    finally:
        driver.close()
