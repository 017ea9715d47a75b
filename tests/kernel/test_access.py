"""Tokens: who they are, what they may, and that the database does not hold them."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from homeostat.kernel import database
from homeostat.kernel.access import (
    Caller,
    Role,
    Token,
    authenticate,
    hash_token,
    insert_token,
    new_token,
    remove_token,
    replace_token,
)
from homeostat.kernel.errors import BadInput, Conflict
from homeostat.kernel.journal import Submission
from store_parts import Store


@pytest.mark.parametrize(
    ("role", "own_read", "own_write", "foreign_read", "foreign_write"),
    [
        (Role.ADMIN, True, True, True, True),
        (Role.OPERATOR, True, True, False, False),
        (Role.VIEWER, True, False, False, False),
        (Role.CONSUMER, True, False, False, False),
    ],
)
def test_what_a_role_may(
    role: Role, own_read: bool, own_write: bool, foreign_read: bool, foreign_write: bool
) -> None:
    caller = Caller("c", role, "mine")
    assert (caller.may_read("mine"), caller.may_write("mine")) == (own_read, own_write)
    assert (caller.may_read("theirs"), caller.may_write("theirs")) == (foreign_read, foreign_write)


def test_no_two_tokens_are_alike() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("hs_") and len(token) == 46 for token in tokens)


@pytest.mark.parametrize("row", [Token(" ", "h", Role.VIEWER, "p", 1), Token("n", "h", Role.VIEWER, "", 1)])
def test_a_token_has_a_name_and_a_project(row: Token) -> None:
    with pytest.raises(BadInput, match="token"):
        insert_token(row)


async def test_a_token_lives_from_its_insert_to_its_removal(store: Store) -> None:
    first, second = new_token(), new_token()
    row = Token("ada", hash_token(first), Role.OPERATOR, "platform", 7)

    def who(token: str) -> Caller | None:
        with store.reading.connect() as connection:
            return authenticate(connection, token)

    async with store.appending() as appender:
        await appender.append(Submission("access", (), (insert_token(row),)))
        assert who(first) == Caller("ada", Role.OPERATOR, "platform")
        assert who(second) is None
        for wrong in ("", "hs_", first[:-1], first + "x", hash_token(first), "\ud800", "hs_\x00"):
            assert who(wrong) is None

        with pytest.raises(Conflict) as caught:
            await appender.append(Submission("access", (), (insert_token(row),)))
        assert first not in str(caught.value)

        newer = Token("ada", hash_token(second), Role.VIEWER, "platform", 8)
        await appender.append(Submission("access", (), replace_token(newer)))
        assert who(first) is None
        assert who(second) == Caller("ada", Role.VIEWER, "platform")

        held = str(store.rows(select(database.token)))
        assert first not in held
        assert second not in held

        await appender.append(Submission("access", (), (remove_token("ada"), remove_token("nobody"))))
        assert who(second) is None
    assert store.rows(select(database.token)) == []


def test_a_role_that_we_do_not_know_opens_nothing(store: Store) -> None:
    token = new_token()
    row = {"name": "x", "hash": hash_token(token), "role": "emperor", "owner": "p", "created_ns": 1}
    with store.engine.begin() as connection:
        connection.execute(insert(database.token), row)
    with store.reading.connect() as connection:
        assert authenticate(connection, token) is None
