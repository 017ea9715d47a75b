"""The HTTP API, assembled: the routers of the frame and of every component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI

from homeostat import __version__
from homeostat.components import COMPONENTS, routers
from homeostat.contracts.component import Component
from homeostat.kernel.http import Callers, make_app
from homeostat.server import dashboard
from homeostat.server.metrics import router as metrics_router
from homeostat.server.status import StatusSources, WarnedAnswers
from homeostat.server.status import router as status_router
from homeostat.server.tokens_api import router as tokens_router
from homeostat.web import api as console_links
from homeostat.web import pages


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the application is made of. `state` is what the components' routers find in `app.state`."""

    overview: StatusSources
    callers: Callers
    body_bytes_max: int
    state: Mapping[str, object]
    components: tuple[Component, ...] = COMPONENTS


def assemble(parts: ApiParts) -> FastAPI:
    """The application: the routers of the frame and of every component."""
    app = make_app(parts.callers, version=__version__, body_bytes_max=parts.body_bytes_max)
    app.state.overview = parts.overview
    app.state.health = parts.overview.health
    app.add_middleware(WarnedAnswers, health=parts.overview.health)
    for name, part in parts.state.items():
        setattr(app.state, name, part)
    frame = (status_router, metrics_router, tokens_router, console_links.router, pages.front, pages.router)
    for router in (*frame, dashboard.router, *routers(parts.components)):
        app.include_router(router)
    return app
