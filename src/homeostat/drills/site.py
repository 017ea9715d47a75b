"""The site file: drilled services, their hosts, how hosts are reached, and the settings of runs.

One YAML file; its `drills:` part is `DrillsSettings`, each setting with its unit and with what a wrong
value breaks; the `ssh:` block of a host says how one without a process of ours is reached. No I/O but
`read_site`. What may be broken on a host is not said here but in that host's own node.yaml.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from homeostat.contracts.nouns import HOST_NAME
from homeostat.drills.actions import Milliseconds, Name
from homeostat.drills.model import Text
from homeostat.drills.shipped.services import address_of
from homeostat.kernel.config import load

KNOWN_HOSTS = Path("~/.ssh/known_hosts")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SshHop(_Part):
    """One host on the way."""

    address: str = Field(min_length=1)
    """Name or address."""

    port: int = Field(default=22, ge=1, le=65_535)
    """Of its SSH server."""

    user: str = Field(min_length=1)
    """Who logs in."""

    key_file: Path | None = None
    """A private key without a passphrase. Without it: the agent's keys, else those in ~/.ssh."""

    known_hosts_file: Path | None = None
    """Its host key must be in there. Without it: ~/.ssh/known_hosts. No unknown host is ever talked to."""

    @property
    def known_hosts(self) -> Path:
        return (self.known_hosts_file or KNOWN_HOSTS).expanduser()

    @property
    def shown(self) -> str:
        return f"{self.user}@{self.address}:{self.port}"


class SshAccess(SshHop):
    """A host without a process of ours."""

    jump: SshHop | None = None
    """The host through which it is reached."""

    sudo: bool = False
    """Whether everything there is run as root, by `sudo -n`."""

    sudo_program: str = Field(default="sudo", min_length=1)
    """Which sudo."""

    python: str = Field(default="python3", min_length=1)
    """Which python there; 3.9 at least."""

    permitted_file: Path = Path("/etc/homeostat/drills.json")
    """That host's own file that says what may be broken there. Without it nothing may."""


class DrillsSettings(_Part):
    """How a drill is run on a site."""

    undo_deadline_s: float = Field(default=30.0, ge=5, le=600)
    """Seconds without a word from us after which the host undoes a fault by itself. Too small: a slow link
    ends a fault before its time, and the run is an ERROR. Too large: a fault outlives a dead tool."""

    renew_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds between two renewals of that deadline. At most a third of it."""

    ready_within_s: float = Field(default=30.0, ge=1, le=600)
    """Seconds until every monitor must have a clean baseline that can decide the drill's limits. Too small: a
    busy machine is refused that would have calmed down."""

    denser_at_most: int = Field(default=2, ge=0, le=5)
    """How often a run that was INCONCLUSIVE for its resolution alone is run again with half the period; and
    one as it was, when the prober itself was late, or when something was not well in the moment between its
    baseline and the fault."""

    delete_within_s: float = Field(default=120.0, ge=1, le=3600)
    """Seconds for the clean-up in the site's cloud. Too small: what takes longer to go, as a server that is
    still being built, stays for `drill heal`. Too large: a cloud that deletes nothing holds up what comes."""

    comes_within_s: float = Field(default=15.0, ge=0, le=600)
    """Seconds until a thing is in the cloud's list, from a request whose answer nobody heard. Too small: what
    a busy cloud makes later is left there. Too large: every clean-up after a cut takes that long."""

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.renew_s > self.undo_deadline_s / 3:
            raise ValueError(f"drills.renew_s: at most a third of undo_deadline_s, not {self.renew_s:g}")
        return self


_URL = r"^(https?|tcp)://[^\s/]+(/\S*)?$"


def _with_address(url: str) -> str:
    address_of(url)
    return url


Url = Annotated[str, Field(pattern=_URL), AfterValidator(_with_address)]
HostName = Annotated[str, Field(pattern=HOST_NAME)]


def _absolute(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute():
        raise ValueError(f"{path}: an absolute path on that host")
    return path


class SiteServer(_Part):
    """Our own server, to which drills are announced."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")]
    """Where its API is."""

    token_file: Path
    """A file with a token of an admin or operator."""


class SitePower(_Part):
    """Where the power of a host is switched: never on the host itself."""

    host: HostName
    """A host of the site whose node.yaml names this one under drills.power."""


class SiteHost(_Part):
    """How one host is reached."""

    config: Path | None = None
    """Its node.yaml: on this machine, or, with `ssh`, on that host."""

    ssh: SshAccess | None = None
    """How it is reached when it is another machine."""

    node: bool = False
    """Whether it is reached by its node process, through the site's `server`. Its own node.yaml is read
    there, and neither `config` nor `ssh` is given here. The token of `server` is an administrator's."""

    probe: Url | None = None
    """What answers as long as the host is up: `tcp://10.0.0.1:22`. Monitors of this host ask it."""

    power: SitePower | None = None
    """Where it is switched off and on again. Without it, `host_off` cannot hit it."""

    @model_validator(mode="after")
    def _reached(self) -> Self:
        if self.node and (self.config is not None or self.ssh is not None):
            raise ValueError("node: a host is reached by its node process, or by config or ssh, not by both")
        if not self.node and self.config is None and self.ssh is None:
            raise ValueError("config (a node.yaml on this machine), ssh or node must be given")
        return self


class Presence(_Part):
    """One service on one host."""

    profile: Name
    """Which processes it is there: drills.profiles of that host's node.yaml, or a shipped one."""

    url: Url | None = None
    """Where it answers on that host itself, past any balancer."""

    resource: str | None = None
    """Its resource id in Homeostat."""

    data: Annotated[PurePosixPath, AfterValidator(_absolute)] | None = None
    """The folder of its data on that host. The injector `disk` hits the disk below it, and the check
    `dependant` looks whether it did."""


class SiteService(_Part):
    """One service and every host that has it."""

    hosts: dict[HostName, Presence] = Field(min_length=1)
    """By host."""

    endpoint: Url | None = None
    """Where its users find it."""

    cacert: Path | None = None
    """CAs in PEM by which its certificates are verified, instead of the site's `cacert`."""

    server_name: HostName | None = None
    """The name in the certificates on its hosts, where their `url` says an address: asked for by SNI and
    `Host`, and verified. Its endpoint goes by the name in its own URL."""

    holder: Literal["listens", "address"] = "listens"
    """Who holds the endpoint: the host on which a process of the profile listens on its port, or the host
    that has its address."""

    uses: tuple[Name, ...] = ()
    """Services of this site without which it cannot serve: a database, for example."""

    quorum: int = Field(default=1, ge=1)
    """So many hosts must still serve when one is hit. 1: the last one is never hit."""

    down_at_most_ms: Annotated[Milliseconds, Field(alias="down_at_most")] = 10_000.0
    """A drill that hits something else is ended when this service is out for longer (`10s`)."""


class SiteCloud(_Part):
    """The OpenStack that is drilled, as its own client knows it: for tokens and for monitors of kind cli."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """Of the cloud in clouds.yaml."""

    clouds_file: Path | None = None
    """Its clouds.yaml; where OpenStack's own tools look for one when it is not given."""

    client: Annotated[str, Field(pattern=r"^[^\s-]\S*$")] = "openstack"
    """The command-line client: a name on PATH, or a path. Only monitors of kind cli need it."""

    image_file: Path | None = None
    """What operations upload as an image, in the format qcow2; a made-up disk of a few KiB when not given."""

    @property
    def secure_file(self) -> Path | None:
        """What clouds.yaml need not say: secure.yaml beside it, before OpenStack's own places."""
        return self.clouds_file and self.clouds_file.with_name("secure.yaml")


class Site(_Part):
    """Everything that a drill may name."""

    site: Name
    """What it is called: one drill at a time runs on it."""

    hosts: dict[HostName, SiteHost] = Field(min_length=1)
    services: dict[Name, SiteService] = Field(default_factory=dict)
    server: SiteServer | None = None
    cloud: SiteCloud | None = None
    cacert: Path | None = None
    """CAs in PEM by which certificates of https:// are verified, and by no others. When not given: what
    clouds.yaml says for the site's cloud (`cacert`, `verify`), else the CAs of this machine."""

    deviations: tuple[Text, ...] = ()
    """In what this site is not what a document asks for: at the head of every report."""

    drills: DrillsSettings = DrillsSettings()

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, each in self.hosts.items():
            if each.node and self.server is None:
                raise ValueError(
                    f"hosts.{name}.node: the site's server, by which it is reached, must be given"
                )
            if each.power is not None and (each.power.host == name or each.power.host not in self.hosts):
                raise ValueError(f"hosts.{name}.power.host: another host of this site, not {each.power.host}")
        for name, service in self.services.items():
            for used in service.uses:
                if used == name or used not in self.services:
                    known = ", ".join(each for each in self.services if each != name) or "none"
                    raise ValueError(f"services.{name}.uses: {used} is no other service here: {known}")
            for host in service.hosts:
                if host not in self.hosts:
                    known = ", ".join(self.hosts)
                    raise ValueError(f"services.{name}.hosts.{host}: no such host; hosts here: {known}")
            if service.holder == "address" and service.endpoint is None:
                raise ValueError(f"services.{name}.holder: address needs an endpoint")
        return self


def read_site(path: Path) -> Site:
    """The site in a file; relative paths in it are beside it. BadInput names file and field."""
    return _beside(load(Site, path, "--site"), path.absolute().parent)


def _beside(site: Site, folder: Path) -> Site:
    """A node.yaml on this machine, keys and tokens; what lies on another host keeps its words."""

    def hop(given: SshHop) -> SshHop:
        files = {name: value for name in ("key_file", "known_hosts_file") if (value := getattr(given, name))}
        jump = getattr(given, "jump", None)
        changed: dict[str, object] = {name: folder / value.expanduser() for name, value in files.items()}
        return given.model_copy(update=changed | ({"jump": hop(jump)} if jump else {}))

    hosts = {
        name: each.model_copy(
            update={"config": folder / each.config} if each.ssh is None and each.config else {}
        ).model_copy(update={"ssh": hop(each.ssh)} if each.ssh else {})
        for name, each in site.hosts.items()
    }
    server = site.server and site.server.model_copy(update={"token_file": folder / site.server.token_file})
    cloud = site.cloud and _cloud_beside(site.cloud, folder)
    services = {
        name: each.model_copy(update={"cacert": folder / each.cacert.expanduser()}) if each.cacert else each
        for name, each in site.services.items()
    }
    changed = {"hosts": hosts, "services": services, "server": server, "cloud": cloud}
    return site.model_copy(update=changed | {"cacert": site.cacert and folder / site.cacert.expanduser()})


def _cloud_beside(cloud: SiteCloud, folder: Path) -> SiteCloud:
    """A client without a slash is looked for on PATH."""
    file = cloud.clouds_file and folder / cloud.clouds_file.expanduser()
    client = str(folder / Path(cloud.client).expanduser()) if "/" in cloud.client else cloud.client
    image = cloud.image_file and folder / cloud.image_file.expanduser()
    return cloud.model_copy(update={"clouds_file": file, "client": client, "image_file": image})
