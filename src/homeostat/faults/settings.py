"""The settings of fault detection: when a fault is over, when it flaps, and its set points."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from homeostat.kernel.config import StrictSettings


class FaultsSettings(StrictSettings):
    """Fault detection."""

    clear_after_s: float = Field(default=0.5, ge=0, le=3600)
    """Seconds a thing must be right before its fault is cleared. Formula: the time between two failures
    that people would call one. Too small: a crash loop raises and clears for ever. Too large: the all-clear
    is late, and two outages are told as one."""

    host_clear_after_s: float = Field(default=3.0, ge=0, le=3600)
    """Seconds a host must be back before its fault is cleared. Formula: what its node needs to say how its
    guests are; while they are being started it waits on, for 30 s at most. Too small: each of them is told
    as a fault of its own. Too large: the all-clear is late."""

    recovered_wait_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds that a project is not told that guests of a dead host run elsewhere, while others of its guests
    are awaited there. Formula: the spread of their starts. Too small: several notices instead of one. Too
    large: one that never comes back hides the others for so long."""

    start_deadline_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that the host of a guest that can move has to start it, before that is a fault of its own.
    Formula: the longest start of a guest. Too small: a slow guest is told as a fault. Too large: one that its
    new host never starts is noticed late."""

    mark_deadline_s: float = Field(default=10.0, gt=0, le=600)
    """Seconds that the cloud has to show a host as down, or what runs there in error. Formula: calls of all
    guests of a host, over those that the cloud takes at once. Too small: ends as unknown and is done again.
    Too large: a cloud that hangs is noticed late."""

    mark_retry_s: float = Field(default=5.0, gt=0, le=600)
    """Seconds until a mark that failed is tried again. Too small: overloads the cloud with retries."""
    flap_max: int = Field(default=0, ge=0, le=100)
    """Faults of one resource or agent within `flap_window_s`, after which the next one is told as flapping
    and stays open until all has been right for the whole window. 0: never. Too small: two deaths hide what
    follows. Too large: a crash loop calls people that often."""

    flap_window_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds. Too small: a slow crash loop is told each time. Too large: the all-clear comes that late."""

    doctor_log_file: Path | None = None
    """A file for a line `doctor monitor detected at T` whenever a fault is raised, T in epoch seconds as the
    tenth word (source: OPNFV Doctor, tests/monitor.py). Absent: no such file."""

    told_within_s: float = Field(default=1.0, gt=0)
    """The promise: seconds from detection until a consumer has been told (source: Doctor requirements,
    under 1 s). Changes what `homeostat status` calls kept."""

    back_within_s: float = Field(default=5.0, gt=0)
    """The promise: seconds until a resource that died is ready again."""
