"""From the cloud of a site to its driver; the heavy library is imported only here, and only then."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from homeostat.drills.clouds.image import tiny_qcow2
from homeostat.drills.clouds.port import Cloud
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput


def opened(cloud: SiteCloud) -> Cloud:
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
