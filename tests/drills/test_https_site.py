"""A site behind TLS: drilled as any other, and refused before anything is broken when nobody is believed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from drilled_site import DRILL, HOSTS, DrilledSite, drilled_site, free_port

from homeostat.drills.language.parser import drill_of
from homeostat.drills.planning.preparation import probe_url
from homeostat.drills.planning.service_client import (
    ServiceClient,
    TlsTrust,
    TlsVerification,
    check_certificates,
    read_tls_trust,
    tls_trust_in,
)
from homeostat.drills.shipped.services import address_of
from homeostat.drills.site import Site, read_site
from homeostat.kernel.errors import BadInput
from tls_parts import Authority, Front, front

NAME = "web.example.org"
UNVERIFIED = "certificates are not verified: `verify: false` of clouds.yaml"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.serving(NAME, "localhost")


@pytest.fixture
def fronted(tls: ssl.SSLContext) -> Iterator[Front]:
    with front(tls) as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, fronted: Front) -> Iterator[DrilledSite]:
    """By name to the endpoint, by address to each host."""
    folder = tmp_path / "site"
    folder.mkdir()
    with drilled_site(folder) as made:
        service = {
            "endpoint": f"https://localhost:{fronted.of(made.ports['balancer'])}",
            "hosts": {
                host: {"url": f"https://127.0.0.1:{fronted.of(made.ports[host])}", "profile": "web"}
                for host in HOSTS
            },
            "server_name": NAME,
        }
        rewrite(made, services={"web": service}, cacert=str(tmp_path / "ca.pem"))
        yield made


def rewrite(site: DrilledSite, **changes: Any) -> None:
    path = site.state / "site.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def site_of(folder: Path, services: dict[str, Any], **parts: Any) -> Site:
    given = {"site": "small", "hosts": {"n1": {"config": "n1.yaml"}}, "services": services} | parts
    (folder / "site.yaml").write_text(yaml.safe_dump(given))
    return read_site(folder / "site.yaml")


def web(endpoint: str | None, url: str | None = None, **more: Any) -> dict[str, Any]:
    return {"endpoint": endpoint, "hosts": {"n1": {"profile": "web", "url": url}}, **more}


@pytest.mark.seed("000 tc001 pass criteria")
def test_a_service_behind_tls_is_drilled_as_any_other(site: DrilledSite) -> None:
    # Fifty handshakes a second are too many for a busy machine: no baseline would be clean.
    unhurried = [{**each, "period": "60ms"} if each["kind"] == "http" else each for each in DRILL["monitors"]]
    site.write_drill({**DRILL, "monitors": unhurried})
    ran = site.run("quick", "--seed", "3")
    assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
    assert ran.row("processes back")["upper_ms"] >= 200
    assert ran.row("1 operation after")["result"] == "PASS"
    assert ran.report["deviations"] == []


@pytest.mark.slow
def test_what_clouds_yaml_does_not_want_verified_heads_the_report(site: DrilledSite) -> None:
    auth = {"auth_url": "https://127.0.0.1:1/v3", "username": "a", "password": "b", "project_name": "c"}
    given = {"clouds": {"ours": {"auth": auth, "verify": False}}}
    (site.state / "clouds.yaml").write_text(yaml.safe_dump(given))
    rewrite(site, cacert=None, cloud={"name": "ours", "clouds_file": "clouds.yaml"})
    site.write_drill(DRILL)
    ran = site.run("quick", "--seed", "3")
    assert (ran.code, ran.report["verdict"]) == (0, "PASS"), (ran.report, ran.said)
    assert ran.report["deviations"] == [UNVERIFIED]


def test_a_certificate_that_nobody_can_verify_is_an_error_before_anything_is_broken(
    site: DrilledSite, tmp_path: Path
) -> None:
    rewrite(site, cacert=str(Authority(tmp_path, "other").file))
    site.write_drill(DRILL)
    ran = site.run("quick")
    assert (ran.code, ran.report["verdict"]) == (12, "ERROR"), (ran.report, ran.said)
    words = str(ran.report)
    assert "services.web." in words and "https://" in words
    assert "a certificate that can be verified (" in words and "cacert for its CA" in words
    assert not site.facts("Injecting") and not site.facts("MonitorReady")
    dry = site.run("quick", "--dry-run")
    assert "a certificate that can be verified" in str(dry.report), dry.said


@pytest.mark.parametrize("wrong", ["name", "authority", "expired", "plain"])
async def test_whom_a_check_refuses(tmp_path: Path, authority: Authority, wrong: str) -> None:
    signing = Authority(tmp_path, "other") if wrong == "authority" else authority
    tls = signing.serving("else.org" if wrong == "name" else NAME, expired=wrong == "expired")
    with front(tls) as made:
        port = made.plain() if wrong == "plain" else made.of(free_port())
        url = f"https://127.0.0.1:{port}/v3"
        found = tls_trust_in(site_of(tmp_path, {"web": web(None, url, server_name=NAME)}, cacert="ca.pem"))
        says = {
            "name": "mismatch",
            "authority": "self.signed certificate|unable to get local issuer",
            "expired": "certificate has expired",
            "plain": "http://, if it speaks no TLS there",
        }[wrong]
        with pytest.raises(BadInput, match=rf"services.web.hosts.n1.url: 'https://127.*({says})'?"):
            await found.check(url)


async def test_what_the_drill_does_not_mean_must_be_believed_too(
    tmp_path: Path, authority: Authority, fronted: Front
) -> None:
    """Else it would be down, and would end the drill once its fault stands."""
    urls = [f"https://localhost:{fronted.of(free_port())}" for _ in range(2)]
    other = web(urls[1], cacert="other.pem")
    Authority(tmp_path, "other")
    drill = drill_of(DRILL)
    good = site_of(tmp_path, {"web": web(urls[0], urls[0])}, cacert="ca.pem")
    await check_certificates(tls_trust_in(good), good, drill, "n1")
    both = site_of(tmp_path, {"web": web(urls[0], urls[0]), "other": other}, cacert="ca.pem")
    with pytest.raises(BadInput, match=rf"services.other.endpoint: '{urls[1]}'"):
        await check_certificates(tls_trust_in(both), both, drill, "n1")


async def test_who_is_not_there_is_not_disbelieved(tmp_path: Path) -> None:
    Authority(tmp_path)
    url = f"https://127.0.0.1:{free_port()}"
    await tls_trust_in(site_of(tmp_path, {"web": web(url)}, cacert="ca.pem")).check(url)


async def test_an_operation_believes_as_a_monitor_does(
    tmp_path: Path, authority: Authority, fronted: Front
) -> None:
    with drilled_site(tmp_path) as made:
        url = f"https://127.0.0.1:{fronted.of(made.ports['n1'])}"
        verified = TlsVerification(authority.file, NAME)
        known = {address_of(url): ("web", verified)}
        async with ServiceClient(TlsTrust(known)) as asker:
            assert (await asker.serves(url)).ok
        async with ServiceClient(
            TlsTrust({address_of(url): ("web", TlsVerification(authority.file))})
        ) as asker:
            asked = await asker.serves(url)
            assert not asked.ok and "its certificate cannot be verified (" in asked.seen
        async with ServiceClient() as asker:
            asked = await asker.serves(url)
            assert not asked.ok and "its certificate cannot be verified (" in asked.seen


async def test_who_speaks_no_tls_is_said_to(tmp_path: Path, tls: ssl.SSLContext) -> None:
    with front(tls) as made:
        async with ServiceClient() as asker:
            asked = await asker.serves(f"https://127.0.0.1:{made.plain()}")
    assert not asked.ok and asked.seen == "TLS with it fails (wrong version number)"


def test_one_address_is_believed_in_one_way(tmp_path: Path) -> None:
    a, b = web("https://10.0.0.1"), web("https://10.0.0.1:443/other", cacert="b.pem")
    with pytest.raises(
        BadInput, match=r"services.b.endpoint: .*the same cacert and server_name as services.a"
    ):
        tls_trust_in(site_of(tmp_path, {"a": a, "b": b}))


def test_files_lie_beside_the_site_and_a_service_may_have_its_own(tmp_path: Path) -> None:
    a, b = (
        web("https://a.org", "https://10.0.0.1", server_name="a.org"),
        web("https://b.org:1", cacert="b.pem"),
    )
    trust = tls_trust_in(site_of(tmp_path, {"a": a, "b": b}, cacert="ca.pem"))
    assert trust.of("https://a.org/v3") == TlsVerification(tmp_path / "ca.pem")
    assert trust.of("https://10.0.0.1") == TlsVerification(tmp_path / "ca.pem", "a.org")
    assert trust.of("https://b.org:1") == TlsVerification(tmp_path / "b.pem")
    assert trust.of("https://elsewhere") == TlsVerification(tmp_path / "ca.pem")
    assert probe_url("https://a.org", "tcp", "/") == "tcp://a.org:443"


@pytest.mark.parametrize(("verify", "deviations"), [(True, ()), (False, (UNVERIFIED,))])
async def test_the_probe_of_a_host_is_believed_as_the_cloud_is(
    tmp_path: Path, fronted: Front, verify: bool, deviations: tuple[str, ...]
) -> None:
    auth = {"auth_url": "https://127.0.0.1:1/v3", "username": "a", "password": "b", "project_name": "c"}
    (tmp_path / "clouds.yaml").write_text(
        yaml.safe_dump({"clouds": {"ours": {"auth": auth, "verify": verify}}})
    )
    url = f"https://127.0.0.1:{fronted.of(free_port())}"
    hosts = {"n1": {"config": "n1.yaml", "probe": url}}
    cloud = {"name": "ours", "clouds_file": "clouds.yaml"}
    found = await read_tls_trust(site_of(tmp_path, {"web": web("http://a.org")}, hosts=hosts, cloud=cloud))
    assert (found.of(url).verify, found.deviations) == (verify, deviations)
    if verify:
        with pytest.raises(BadInput, match=r"hosts.n1.probe: 'https://"):
            await found.check(url)
    own = {"n1": {"config": "n1.yaml", "probe": "https://10.0.0.1"}}
    services = {"web": web(None, "https://10.0.0.1/v3", server_name=NAME)}
    assert tls_trust_in(site_of(tmp_path, services, hosts=own)).of("https://10.0.0.1").server_name == NAME


@pytest.mark.parametrize(
    ("clouds", "site", "verified", "deviations"),
    [
        ({"cacert": "/etc/ca.pem"}, {}, TlsVerification(Path("/etc/ca.pem")), ()),
        ({"verify": False}, {}, TlsVerification(verify=False), (UNVERIFIED,)),
        ({"verify": False}, {"cacert": "/own.pem"}, TlsVerification(Path("/own.pem")), ()),
        ({}, {}, TlsVerification(), ()),
    ],
)
async def test_what_the_site_leaves_open_its_clouds_yaml_says(
    tmp_path: Path,
    clouds: dict[str, Any],
    site: dict[str, Any],
    verified: TlsVerification,
    deviations: tuple[str, ...],
) -> None:
    auth = {"auth_url": "https://127.0.0.1:1/v3", "username": "a", "password": "b", "project_name": "c"}
    given = {"clouds": {"ours": {"auth": auth, **clouds}}}
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump(given))
    cloud = {"name": "ours", "clouds_file": "clouds.yaml"}
    found = await read_tls_trust(site_of(tmp_path, {"web": web("https://a.org")}, cloud=cloud, **site))
    assert (found.of("https://a.org"), found.deviations) == (verified, deviations)
