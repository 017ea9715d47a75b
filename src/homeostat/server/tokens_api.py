"""/api/v1/tokens: lists, issues and revokes access tokens.

Administrators only; a token itself is never shown again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, select

from homeostat.contracts.events.fleet import TokenIssued, TokenRevoked
from homeostat.contracts.nouns import INFRASTRUCTURE, LABEL, OWNER, Owner
from homeostat.kernel import access, database
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.appender import Appender
from homeostat.kernel.clock import Clock
from homeostat.kernel.database import Readers
from homeostat.kernel.errors import BadInput, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, Callers, CurrentCaller
from homeostat.kernel.journal import NewEvent, Submission

Name = Annotated[str, Path(pattern=LABEL)]


class TokenRequest(BaseModel):
    """The body of a PUT. Without `token`, one is made and shown in the answer, once."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    project: Annotated[str, Field(pattern=OWNER)]
    token: Annotated[str, Field(min_length=32, max_length=200, pattern=r"^hs_[A-Za-z0-9_-]+$")] | None = None


@dataclass(frozen=True, slots=True)
class TokenRegistry:
    """Where tokens are kept."""

    appender: Appender
    readers: Readers
    callers: Callers
    clock: Clock

    async def issue(self, name: str, role: Role, owner: str, token: str) -> None:
        """Make a token valid. Nothing happens when it is already, so that every start may call it."""
        known = await self.readers.read(lambda conn: access.authenticate(conn, token))
        if known == Caller(name, role, owner):
            return
        now_ns = self.clock.wall_ns()
        row = access.Token(name, access.hash_token(token), role, owner, now_ns)
        event = TokenIssued(name, role.value, Owner(owner))
        draft = NewEvent(event, f"token/{name}", now_ns, "access", f"token/{name}")
        await self.appender.append(Submission("access", (draft,), access.replace_token(row)))
        self.callers.forget()

    async def revoke(self, name: str) -> None:
        now_ns = self.clock.wall_ns()
        draft = NewEvent(TokenRevoked(name), f"token/{name}", now_ns, "access", f"token/{name}")
        await self.appender.append(Submission("access", (draft,), (access.remove_token(name),)))
        self.callers.forget()


class TokenView(BaseModel):
    """What may be known of a token."""

    name: str
    role: Role
    project: str


class TokenList(BaseModel):
    """All tokens, by name."""

    items: list[TokenView]


class IssuedView(TokenView):
    """The answer to a PUT. `token` is there only when it was made here, and only this once."""

    token: str | None = None


def _token_registry(request: Request) -> TokenRegistry:
    registry: TokenRegistry = request.app.state.tokens
    return registry


Tokens = Annotated[TokenRegistry, Depends(_token_registry)]
router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"], responses=ERRORS)


@router.get("")
async def list_tokens(caller: CurrentCaller, registry: Tokens) -> TokenList:
    """Names, roles and projects."""
    _administrator(caller)
    return TokenList(items=await registry.readers.read(_rows))


@router.put("/{name}")
async def put_token(name: Name, wanted: TokenRequest, caller: CurrentCaller, registry: Tokens) -> IssuedView:
    """Issue a token, or replace the one of that name."""
    _administrator(caller)
    if wanted.project == INFRASTRUCTURE and wanted.role not in (Role.ADMIN, Role.VIEWER):
        raise BadInput("role", wanted.role.value, "viewer or admin; nobody else belongs to infrastructure")
    token = wanted.token or access.new_token()
    await registry.issue(name, wanted.role, wanted.project, token)
    shown = None if wanted.token else token
    return IssuedView(name=name, role=wanted.role, project=wanted.project, token=shown)


@router.delete("/{name}", status_code=204)
async def delete_token(name: Name, caller: CurrentCaller, registry: Tokens) -> None:
    """Revoke a token."""
    _administrator(caller)
    if name not in {row.name for row in await registry.readers.read(_rows)}:
        raise NotFound(f"there is no token {name!r}")
    await registry.revoke(name)


def _administrator(caller: Caller) -> None:
    if caller.role is not Role.ADMIN:
        raise NotAllowed(f"{caller.name} is {caller.role.value}; tokens are for administrators")


def _rows(connection: Connection) -> list[TokenView]:
    table = database.token.c
    query = select(table.name, table.role, table.owner).order_by(table.name)
    rows = connection.execute(query)
    return [TokenView(name=row.name, role=Role(row.role), project=row.owner) for row in rows]
