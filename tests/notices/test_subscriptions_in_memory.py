"""The subscriptions in memory: what is adopted between two readings of the table is heard at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.contracts.nouns import INFRASTRUCTURE, Owner
from notices_parts import World, subscription, world

OWNERS = ("shop", "bank", "farm", "mill", "port")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        await made.subscribe(*(subscription(f"{owner}-1", owner) for owner in OWNERS))
        yield made


async def test_what_is_adopted_is_heard_without_another_reading(here: World) -> None:
    known = here.subscriptions

    def names(owner: str) -> list[str]:
        return [each.name for each in known.that_may_hear([Owner(owner)])]

    assert names("shop") == ["shop-1"]
    known.adopt("a-new", subscription("a-new", "shop"))
    known.adopt("first", subscription("first", "inn"))
    assert (names("shop"), names("inn")) == (["a-new", "shop-1"], ["first"])
    known.adopt("all", subscription("all", INFRASTRUCTURE))
    assert names("bank") == ["all", "bank-1"]
    changed = replace(subscription("shop-1", "shop"), key_id="k2")
    known.adopt("shop-1", changed)
    assert known.that_may_hear([Owner("shop")])[-1] is changed
    known.adopt("shop-1", subscription("shop-1", "bank"))
    assert (names("shop"), names("bank")) == (["a-new", "all"], ["all", "bank-1", "shop-1"])
    known.adopt("bank-1", None)
    assert names("bank") == ["all", "shop-1"]
    assert [each.name for each in known.all()] == sorted(each.name for each in known.all())
