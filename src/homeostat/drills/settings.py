"""The settings of running drills, the `drills:` part of a site file. Each with its unit and what breaks."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DrillsSettings(BaseModel):
    """How a drill is run on a site."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

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
