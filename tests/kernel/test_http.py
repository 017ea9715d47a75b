"""The HTTP edge: who calls, how every error looks, and how long a body may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, create_engine, insert
from starlette.testclient import TestClient

from homeostat.kernel import database
from homeostat.kernel.access import Role, hash_token
from homeostat.kernel.errors import (
    AlreadyDone,
    BadInput,
    Conflict,
    CorruptState,
    NotAllowed,
    NotFound,
    StoreFull,
    StoreUnavailable,
)
from homeostat.kernel.http import Callers, CurrentCaller, Text, make_app

T = TypeVar("T")
ERRORS: dict[str, Exception] = {
    "bad": BadInput("size", 7, "a number below 5"),
    "secret": BadInput("secret", "hunter2hunter2", "16 characters"),
    "odd": BadInput("thing", object(), "something that JSON knows"),
    "conflict": Conflict("name", "a", "another name"),
    "missing": NotFound("thing a: there is none that you may read"),
    "denied": NotAllowed("a viewer does not change things"),
    "done": AlreadyDone("already"),
    "later": StoreUnavailable("the database does not answer"),
    "full": StoreFull("no room"),
    "corrupt": CorruptState("/var/lib/secret-path: broken"),
    "bug": RuntimeError("line 7 of secret.py"),
}


class Clock:
    """Time that a test moves."""

    now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def mono_ns(self) -> int:
        return self.now_ns


class Readers:
    """Reads of one connection, counted."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.reads, self.is_gone = connection, 0, False

    async def read(self, fn: Callable[[Connection], T]) -> T:
        self.reads += 1
        if self.is_gone:
            raise StoreUnavailable("the database does not answer")
        return fn(self.connection)


class Body(BaseModel):
    """What a route takes."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0)
    secret: str = Field(default="", max_length=3)
    word: Text = ""


@pytest.fixture
def readers() -> Iterator[Readers]:
    engine = create_engine("sqlite://", connect_args={"check_same_thread": False})
    with engine.connect() as connection:
        database.METADATA.create_all(connection)
        values = {"name": "ada", "hash": hash_token("hs_right"), "role": Role.OPERATOR.value}
        connection.execute(insert(database.token), {**values, "owner": "shop", "created_ns": 1})
        yield Readers(connection)
    engine.dispose()


@pytest.fixture
def app(readers: Readers) -> FastAPI:
    made = make_app(Callers(readers, Clock()), body_bytes_max=1000)  # type: ignore[arg-type]

    @made.get("/me")
    async def me(caller: CurrentCaller) -> dict[str, str]:
        return {"name": caller.name, "owner": caller.owner}

    @made.post("/sizes")
    async def sizes(body: Body) -> Body:
        return body

    @made.get("/errors/{name}")
    async def errors(name: str, limit: int = 1) -> None:
        raise ERRORS[name]

    @made.get("/several")
    async def several(kind: Annotated[tuple[str, ...], Query()] = ()) -> list[str]:
        return list(kind)

    return made


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


def test_a_token_says_who_calls_and_is_read_once(client: TestClient, readers: Readers) -> None:
    for _ in range(3):
        answer = client.get("/me", headers={"Authorization": "Bearer hs_right"})
        assert (answer.status_code, answer.json()) == (200, {"name": "ada", "owner": "shop"})
    assert readers.reads == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer hs_wrong"}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}],
)
def test_without_a_known_token_nothing_is_told(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["error"]["type"] == "not_authenticated"
    assert "hs_" not in answer.text


async def test_a_removed_token_stops_working_after_seconds(readers: Readers) -> None:
    clock = Clock()
    callers = Callers(readers, clock, kept_s=2.0)  # type: ignore[arg-type]
    assert await callers.find("hs_right") is not None
    readers.connection.execute(database.token.delete())
    assert await callers.find("hs_right") is not None
    clock.now_ns = 2_000_000_000
    assert await callers.find("hs_right") is None


async def test_who_was_known_is_told_what_is_wrong_while_the_store_does_not_answer(readers: Readers) -> None:
    clock = Clock()
    callers = Callers(readers, clock, kept_s=2.0)  # type: ignore[arg-type]
    known = await callers.find("hs_right")
    readers.is_gone = True
    clock.now_ns = 602 * 10**9 - 1
    assert await callers.find("hs_right") == known
    with pytest.raises(StoreUnavailable):
        await callers.find("hs_wrong")
    clock.now_ns = 602 * 10**9
    with pytest.raises(StoreUnavailable):
        await callers.find("hs_right")


async def test_forget_makes_it_stop_at_once_and_wrong_tokens_are_not_kept(readers: Readers) -> None:
    callers = Callers(readers, Clock())  # type: ignore[arg-type]
    await callers.find("hs_right")
    readers.connection.execute(database.token.delete())
    callers.forget()
    assert await callers.find("hs_right") is None
    for index in range(2000):
        await callers.find(f"hs_{index}")
    assert len(callers._kept) == 0


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("bad", 422, "bad_input"),
        ("odd", 422, "bad_input"),
        ("conflict", 409, "conflict"),
        ("missing", 404, "not_found"),
        ("denied", 403, "not_allowed"),
        ("done", 409, "already_done"),
        ("later", 503, "retry_later"),
        ("full", 503, "retry_later"),
        ("corrupt", 500, "internal"),
        ("bug", 500, "internal"),
    ],
)
def test_every_error_has_the_same_form(client: TestClient, name: str, status: int, kind: str) -> None:
    answer = client.get(f"/errors/{name}")
    assert answer.status_code == status
    (error,) = answer.json().values()
    assert set(error) == {"type", "message", "field", "value", "accepted"}
    assert error["type"] == kind
    assert error["message"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "Traceback" not in answer.text and "secret" not in answer.text


def test_bad_input_names_field_value_and_remedy(client: TestClient) -> None:
    error = client.get("/errors/bad").json()["error"]
    assert error["message"] == "size: 7 is not accepted; a number below 5"
    assert (error["field"], error["value"], error["accepted"]) == ("size", 7, "a number below 5")


def test_a_secret_is_not_sent_back(client: TestClient) -> None:
    assert "hunter2" not in client.get("/errors/secret").text
    answer = client.post("/sizes", json={"size": 1, "secret": "hunter2"})
    assert answer.status_code == 422 and answer.json()["error"]["field"] == "secret"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        (b'{"size": -1}', "size", -1),
        (b'{"size": "x"}', "size", "x"),
        (b"{}", "size", None),
        (b'{"size": 1, "colour": "red"}', "colour", "red"),
        (b'{"size": 1, "word": 7}', "word", 7),
        (b'{"size": 1, "word": "\\ud800"}', "word", "?"),
        (b'{"size": 1, "secret": 7, "word": "\\ud800"}', "secret", "(not shown)"),
        (b'{"size": "\\ud800"}', "size", "?"),
        (b'{"size": 1, "word": "a\\u0000"}', "word", "a\x00"),
        (b'{"size": 1, "word": {"a": [1]}}', "word", '{"a":[1]}'),
        (b'{"size": NaN}', "size", None),
        (b'{"size": 1e999}', "size", None),
        (b"{", "body", None),
        (b"", "body", None),
        (b"[]", "body", "[]"),
        (b'"' + b"x" * 500 + b'"', "body", "x" * 77 + "..."),
    ],
)
def test_a_bad_body_is_one_line(client: TestClient, body: bytes, field: str, value: object) -> None:
    answer = client.post("/sizes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["field"] == field
    if value is not None:
        assert error["value"] == value
    assert error["accepted"] and "\n" not in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"size": ' + b"9" * 900 + b"}",
        b"[" * 900,
        b"\xff\xfe",
        b'{"\\ud800": 1, "size": 1}',
    ],
)
def test_a_hostile_body_is_no_error_of_ours(client: TestClient, body: bytes) -> None:
    answer = client.post("/sizes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500
    assert answer.json()


def test_parameters_are_checked_in_the_same_form(client: TestClient) -> None:
    answer = client.get("/errors/bad?limit=x")
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "limit"


def test_of_several_values_none_is_dropped_in_silence(client: TestClient) -> None:
    answer = client.get("/errors/bad?limit=1&limit=2")
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "limit")
    assert client.get("/several?kind=a&kind=b").json() == ["a", "b"]


def test_unknown_paths_and_methods_have_the_form_too(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"]["type"] == "not_found"
    answer = client.delete("/me")
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize("path", ["/sizes", "/nowhere", "/me"])
def test_a_body_above_the_limit_is_refused_when_its_length_is_declared(client: TestClient, path: str) -> None:
    answer = client.post(path, content=b"x" * 1001)
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")


async def test_a_body_in_chunks_is_refused_when_it_gets_too_long(app: FastAPI) -> None:
    """Straight to ASGI: an endless body without a length must not be read to its end."""
    asked, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 400, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/sizes",
        "raw_path": b"/sizes",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("h", 80),
        "client": ("c", 1),
        "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
    }
    await app(scope, receive, send)
    assert asked == 3
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 413
    assert b"too_large" in sent[1]["body"]


def test_a_body_at_the_limit_is_read(client: TestClient) -> None:
    body = b'{"size": 1, "word": "' + b"x" * (1000 - 23) + b'"}'
    assert len(body) == 1000
    answer = client.post("/sizes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def test_there_is_a_document_and_no_page_with_foreign_scripts(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json()["info"]["title"] == "Homeostat"
    assert client.get("/docs").status_code == 404
