"""How long silence is borne."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FleetSettings(BaseModel):
    """Server side of hosts and nodes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    lost_after_s: float = Field(default=3.0, ge=0.5)
    """Seconds of silence before a node process is agent_lost. Formula: 3 heartbeats. Too small: a busy node
    is accused. Too large: nobody watches its resources and nobody knows."""

    sweep_s: float = Field(default=0.1, gt=0, le=1)
    """Seconds between two looks at who is silent. Too small: CPU. Too large: adds to lost_after_s."""

    inbox_max: int = Field(default=10000, ge=100)
    """Messages from nodes waiting to be decided; when full, further ones are dropped and sent again by
    their nodes. Too small: resends under load. Too large: old news after a stall."""
