"""Monitors that speak TLS: what they believe, what they do not, and that an outage is measured as without."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from sampled_server import SampledServer, answer_of, sampled_server
from test_monitor_processes import PERIOD_MS, WITHIN_S, last_samples, measured, until

from homeostat.kernel.errors import BadInput
from homeostat.monitors.node.prober import Prober, now_ns
from homeostat.monitors.node.sampler import SamplerConfig
from homeostat.monitors.outage import ProbeAnswer, Sample, read_samples
from homeostat.monitors.supervision import Measurement, Monitors, monitor_command
from tls_parts import Authority

NAME = "api.example.org"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.serving(NAME, "127.0.0.1")


@pytest.fixture
def server(tls: ssl.SSLContext) -> Iterator[SampledServer]:
    with sampled_server(tls) as running:
        yield running


def config(folder: Path, server: SampledServer, **changes: object) -> SamplerConfig:
    values: dict[str, object] = {
        "name": "api",
        "url": f"https://127.0.0.1:{server.port}/v3",
        "samples_file": str(folder / "api.jsonl"),
        "period_ms": PERIOD_MS,
        "deadline_ms": 5_000.0,
        "cacert": str(folder / "ca.pem"),
    }
    return SamplerConfig(**(values | changes))  # type: ignore[arg-type]


async def seen(chosen: SamplerConfig, number: int = 12) -> Measurement:
    """What a monitor brings that need not become ready."""
    file = Path(chosen.samples_file)
    async with Monitors([monitor_command(chosen, file.parent)]) as monitors:
        await until(lambda: len(read_samples(file)) >= number)
        (found,) = await monitors.stop()
    return found


@pytest.mark.seed("000 service outage time is measured by continuously asking the service")
async def test_an_outage_behind_tls(tmp_path: Path, server: SampledServer) -> None:
    chosen = config(tmp_path, server)
    found, outage = await measured(
        chosen, server.refuse, lambda: server.call(server.listen()), ProbeAnswer.REFUSED
    )
    assert found.lost is None
    assert outage.longest is not None and outage.longest.upper_ms is not None
    assert 0 < outage.longest.lower_ms <= outage.gap_ms <= outage.longest.upper_ms
    assert outage.baseline_failed == 0
    fresh = [each.fresh for each in found.samples]
    assert all(fresh[9::10]), "every tenth goes on a new connection"
    assert server.connections < len(fresh) / 2, "the others go on a kept one"
    assert server.heard[0].startswith(b"GET /v3 HTTP/1.1\r\nHost: 127.0.0.1")


async def test_wrong_answers_behind_tls(tmp_path: Path, server: SampledServer) -> None:
    def fail() -> None:
        server.answer = answer_of(503)

    def serve() -> None:
        server.answer = answer_of(200)

    found, outage = await measured(config(tmp_path, server), fail, serve, ProbeAnswer.ERROR)
    assert {each.status for each in found.samples if each.answer is ProbeAnswer.ERROR} == {503}
    assert outage.lower_ms > 0


async def test_a_certificate_that_changes_to_one_of_nobody_is_an_outage_with_its_reason(
    tmp_path: Path, server: SampledServer, authority: Authority, tls: ssl.SSLContext
) -> None:
    other = Authority(tmp_path, "other")

    async def given_by(who: Authority) -> None:
        who.give(tls, NAME, "127.0.0.1")  # on the server's own thread: key and certificate change together

    found, outage = await measured(
        config(tmp_path, server),
        lambda: server.call(given_by(other)),
        lambda: server.call(given_by(authority)),
        ProbeAnswer.UNTRUSTED,
    )
    assert found.lost is None and outage.lower_ms > 0
    failed = {each.answer for each in found.samples} - {ProbeAnswer.OK, ProbeAnswer.LATE}
    assert failed == {ProbeAnswer.UNTRUSTED}
    assert outage.answers[ProbeAnswer.UNTRUSTED] >= 5
    assert outage.literal_ms > 0, "a failure of the response"


async def test_no_kept_connection_hides_a_certificate_of_nobody(
    tmp_path: Path, server: SampledServer, authority: Authority, tls: ssl.SSLContext
) -> None:
    """Several are kept where answers take longer than a period."""
    seen: list[Sample] = []
    prober = Prober(config(tmp_path, server).target(), seen.append)

    async def ask(count: int, *, fresh: bool = False) -> list[ProbeAnswer]:
        before = len(seen)
        for _ in range(count):
            prober.ask(now_ns(), fresh=fresh)
        await until(lambda: len(seen) == before + count)
        return [each.answer for each in seen[before:]]

    async def given_by(who: Authority) -> None:
        who.give(tls, NAME, "127.0.0.1")

    assert await ask(3) == [ProbeAnswer.OK] * 3
    assert await ask(3) == [ProbeAnswer.OK] * 3 and server.connections == 3
    server.call(given_by(Authority(tmp_path, "other")))
    assert await ask(1, fresh=True) == [ProbeAnswer.UNTRUSTED]
    assert await ask(2) == [ProbeAnswer.UNTRUSTED] * 2
    prober.close()


@pytest.mark.parametrize("wrong", ["name", "authority", "expired", "system"])
async def test_who_is_not_believed_is_not_asked(tmp_path: Path, authority: Authority, wrong: str) -> None:
    signing = Authority(tmp_path, "other") if wrong == "authority" else authority
    names = ("another.example.org",) if wrong == "name" else ("127.0.0.1",)
    with sampled_server(signing.serving(*names, expired=wrong == "expired")) as server:
        cacert = None if wrong == "system" else str(authority.file)
        found = await seen(config(tmp_path, server, cacert=cacert))
    assert {each.answer for each in found.samples} == {ProbeAnswer.UNTRUSTED}
    assert found.ready is None and not server.heard


async def test_asked_by_address_believed_by_name(tmp_path: Path, authority: Authority) -> None:
    tls, asked = authority.serving(NAME), []
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    with sampled_server(tls) as server:
        found = await seen(config(tmp_path, server, server_name=NAME))
        heard = server.heard[0]
    assert {each.answer for each in found.samples} == {ProbeAnswer.OK}
    assert set(asked) == {NAME}
    assert f"\r\nHost: {NAME}:{server.port}\r\n".encode() in heard


async def test_who_is_told_to_believe_anybody_does(tmp_path: Path) -> None:
    with sampled_server(Authority(tmp_path, "other").serving("nobody")) as server:
        found = await seen(config(tmp_path, server, cacert=None, verify=False))
    assert {each.answer for each in found.samples} == {ProbeAnswer.OK}


async def test_one_who_speaks_no_tls_is_the_services_error(tmp_path: Path) -> None:
    Authority(tmp_path)
    with sampled_server() as server:
        found = await seen(config(tmp_path, server))
    assert {each.answer for each in found.samples} == {ProbeAnswer.ERROR}


async def test_a_handshake_has_the_deadline_of_its_probe(tmp_path: Path, tls: ssl.SSLContext) -> None:
    with sampled_server(tls) as server:
        chosen = config(tmp_path, server, deadline_ms=300.0)
        file = Path(chosen.samples_file)
        async with Monitors([monitor_command(chosen, tmp_path)]) as monitors:
            assert await monitors.ready(WITHIN_S), monitors.lost
            server.call(_silent(server))
            await until(lambda: last_samples(file, 1)[0].answer is ProbeAnswer.TIMEOUT)
            (found,) = await monitors.stop()
    expired = [each for each in found.samples if each.answer is ProbeAnswer.TIMEOUT]
    assert all(each.fresh and each.done_ns - each.sent_ns >= 300e6 for each in expired)


async def _silent(server: SampledServer) -> None:
    """Takes connections, and never says a word of TLS."""
    assert server._server is not None
    server._server.close()
    server.tls, server.answer = None, None
    await server.listen()
    for transport in list(server._open):
        transport.abort()


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_without_a_ca_is_said_at_once(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    chosen = SamplerConfig("api", "https://127.0.0.1:1/", str(tmp_path / "s"), cacert=str(file))
    with pytest.raises(
        BadInput, match=r"cacert: '.*ca.pem' is not accepted; a file of CA certificates in PEM"
    ):
        chosen.target()
