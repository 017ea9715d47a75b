"""Requests of a node to the leader over a real NATS: asked until answered, errors by name, one leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from homeostat.contracts.nouns import HostId
from homeostat.contracts.wire import LeaderRequest, encode
from homeostat.fleet.responder import LeaderEnd, RequestResponder
from homeostat.fleet.rpc import LeaderRpc, Respond, RpcCall, VerbTable
from homeostat.kernel.bus import Bus, BusSettings
from homeostat.kernel.errors import BadInput, Conflict, Deposed, GiveUp, NotAllowed, RetryLater
from real_parts import NatsServer

LONG_S = 60.0


@dataclass
class Game:
    """Counts what was asked; fails as often as it is told."""

    calls: list[RpcCall] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    async def play(self, call: RpcCall) -> Any:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)
        return {"host": call.host, "played": call.arguments["what"]}


@asynccontextmanager
async def ends(nats: NatsServer, respond: Respond, epoch: int = 5) -> AsyncIterator[tuple[Bus, LeaderRpc]]:
    """A leader that responds, and a node that has seen epoch 5."""

    async def heeded(said: int) -> bool:
        return said >= 5

    server = await Bus.connect(BusSettings(nats.url, "server", "server-secret"))
    node = await Bus.connect(BusSettings(nats.url, "n1", "n1-secret", inbox_prefix="to.n1.inbox"))
    responder = RequestResponder(LeaderEnd(epoch), respond, server)
    await responder.listen()
    running = asyncio.create_task(responder.run())
    rpc = LeaderRpc(HostId("n1"), "life-1", node, heeded, repeat_s=0.05)
    await rpc.listen()
    try:
        yield node, rpc
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await node.close()
        await server.close()


def table(game: Game) -> Respond:
    verbs = VerbTable()
    verbs.add("games.play", game.play)
    return verbs.respond


async def test_a_component_adds_a_verb_and_a_node_asks_it_once(nats: NatsServer) -> None:
    game = Game()
    async with ends(nats, table(game)) as (_, rpc):
        first = await rpc.ask("games.play", {"what": "chess"}, LONG_S, "r-1")
        assert first == {"host": "n1", "played": "chess"}
        assert await rpc.ask("games.play", {"what": "chess"}, LONG_S, "r-1") == first
        assert [(each.request, each.incarnation) for each in game.calls] == [("r-1", "life-1")]
        with pytest.raises(BadInput, match="accepted here: games"):
            await rpc.ask("games.stop", {}, LONG_S)


async def test_errors_come_back_by_name_and_only_a_passing_one_is_begun_again(nats: NatsServer) -> None:
    game = Game(
        errors=[RetryLater("full"), Conflict("what", "chess", "go"), NotAllowed("no"), ValueError("x")]
    )
    async with ends(nats, table(game)) as (_, rpc):
        with pytest.raises(RetryLater, match="full"):
            await rpc.ask("games.play", {"what": "chess"}, LONG_S, "r-1")
        for _again in range(2):
            with pytest.raises(Conflict) as caught:
                await rpc.ask("games.play", {"what": "chess"}, LONG_S, "r-1")
            assert (caught.value.field, caught.value.value) == ("what", "chess")
        assert len(game.calls) == 2
        with pytest.raises(NotAllowed, match="no"):
            await rpc.ask("games.play", {"what": "chess"}, LONG_S)
        with pytest.raises(GiveUp, match="ValueError"):
            await rpc.ask("games.play", {"what": "chess"}, LONG_S)


async def test_a_deposed_leader_is_not_heeded_and_does_not_answer(nats: NatsServer) -> None:
    game = Game()
    async with ends(nats, table(game), epoch=4) as (_, rpc):
        with pytest.raises(RetryLater, match="no leading server"):
            await rpc.ask("games.play", {"what": "chess"}, 1.0)
    game.errors = [Deposed("another leads")]
    async with ends(nats, table(game)) as (_, rpc):
        assert (await rpc.ask("games.play", {"what": "go"}, LONG_S))["played"] == "go", "asked again"


async def test_what_another_host_says_in_its_name_is_not_begun(nats: NatsServer) -> None:
    game = Game()
    async with ends(nats, table(game)) as (node, rpc):
        forged = LeaderRequest(HostId("n2"), "r-1", "life-9", "games.play", {"what": "chess"}, LONG_S)
        assert await node.publish("node.n1.requests", encode(forged))
        assert await node.publish("node.n1.requests", b"nonsense")
        await rpc.ask("games.play", {"what": "go"}, LONG_S)
        assert [each.arguments for each in game.calls] == [{"what": "go"}]


def test_two_do_not_respond_to_one_verb() -> None:
    verbs = VerbTable()
    verbs.add("games", Game().play)
    with pytest.raises(ValueError, match="games"):
        verbs.add("games", Game().play)
