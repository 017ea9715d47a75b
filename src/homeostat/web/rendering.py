"""Templates, and how numbers and times look on a page. All is escaped; a missing name is an error."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from homeostat import __version__
from homeostat.drills.reports.words import bounds, heading, limit, remark, span
from homeostat.web.assets import asset_url

SIGNS = {
    "good": ("kept", "up", "present", "cleared", "delivered", "ok", "PASS"),
    "bad": (
        "broken",
        "down",
        "failed",
        "error",
        "open",
        "lost",
        "agent lost",
        "given_up",
        "critical",
        "FAIL",
        "ERROR",
        "lapsed",
    ),
    "unsure": (
        "unknown",
        "starting",
        "clearing",
        "pending",
        "stopped",
        "suspected",
        "back",
        "held",
        "silenced",
        "active",
        "planned",
        "INCONCLUSIVE",
        "ABORTED",
        "running",
    ),
}
_SIGN_OF = {word: sign for sign, words in SIGNS.items() for word in words}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("homeostat.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"asset": asset_url, "version": __version__}
    made.filters |= {"clock": clock, "day": day, "duration": duration, "sign": sign, "quantity": quantity}
    made.filters |= {
        "named": named,
        "bounds": bounds,
        "limit": limit,
        "remark": remark,
        "heading": heading,
        "span": span,
    }
    return made


def page(template: str, **values: object) -> str:
    """A whole page, or a part of one."""
    return _environment().get_template(template).render(values)


def named(subject: str) -> str:
    """The name in a subject: `n1` of `host/n1`. What has no noun (`fleet`) is its own name."""
    return subject.partition("/")[2] or subject


def clock(at: str) -> str:
    """The API's time as `05:26:55.123`, in UTC."""
    return datetime.fromisoformat(at).strftime("%H:%M:%S.%f")[:-3]


def day(at: str) -> str:
    """The API's time as `2026-11-21 05:26:55`, in UTC."""
    return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%S")


def duration(ms: float | None) -> str:
    """Milliseconds in the unit that a person would choose; empty for None."""
    if ms is None:
        return ""
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1_000:.2f} s"
    return f"{ms / 60_000:.0f} min"


def quantity(value: float, unit: str) -> str:
    """A duration as such; of anything that is counted the number, with three digits that count."""
    if unit in ("s", "ms"):
        whole = value == int(value) and unit == "s" and value < 120
        return f"{value:.0f} s" if whole else duration(value * (1_000 if unit == "s" else 1))
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def sign(word: str) -> str:
    """`good`, `bad`, `unsure` or `plain`: which shape and colour a state has on a page."""
    return _SIGN_OF.get(word, "plain")
