"""Who may begin a drill, whose claim is over, and who must stop. Pure; times are one monotonic clock's.

One drill a site: what two of them measure on the same hosts, each would take for its own. A claim that is not
renewed lapses, so that a tool that died keeps nobody out for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

LAPSE_S = 15.0
"""A tool renews every second. Shorter, and the start of another server would end drills; longer, and the next
one waits for a dead tool for as long."""
LAPSE_NS = round(LAPSE_S * 1e9)


@dataclass(frozen=True, slots=True)
class Claim:
    """A site that one run has for itself until `until_ns`. `by` is the token of who began it."""

    site: str
    run: str
    owner: str
    by: str
    until_ns: int


@dataclass(frozen=True, slots=True)
class Halt:
    """No drill runs until somebody takes this back."""

    by: str
    owner: str
    why: str
    at_ns: int
    """Wall time, for people."""

    @property
    def words(self) -> str:
        """For the tool that must stop."""
        return f"halted by {self.by}: {self.why}"


@dataclass(frozen=True, slots=True)
class Claims:
    """All claims by site, and whether drills are halted. A value: each change makes another."""

    by_site: Mapping[str, Claim] = field(default_factory=dict)
    halt: Halt | None = None

    def of(self, run: str) -> Claim | None:
        """The claim of a run; None when it has none (any more)."""
        return next((each for each in self.by_site.values() if each.run == run), None)

    def with_claim(self, claim: Claim) -> Claims:
        """The site is this run's."""
        return replace(self, by_site={**self.by_site, claim.site: claim})

    def without(self, run: str) -> Claims:
        """The run has nothing any more."""
        left = {site: claim for site, claim in self.by_site.items() if claim.run != run}
        return replace(self, by_site=left)


def holder(claims: Claims, site: str, now_ns: int) -> Claim | None:
    """Whose a site is now. One that has lapsed is nobody's, even before that is written down."""
    found = claims.by_site.get(site)
    return None if found is None or now_ns >= found.until_ns else found


def renewed(claims: Claims, run: str, now_ns: int) -> Claims:
    """The claim lasts longer. One that has lapsed stays so: another drill may have begun in between."""
    claim = claims.of(run)
    if claim is None or now_ns >= claim.until_ns:
        return claims
    return claims.with_claim(replace(claim, until_ns=now_ns + LAPSE_NS))


def stop_words(claims: Claims, run: str, now_ns: int) -> str | None:
    """Why a run must stop; None while it may go on."""
    claim = claims.of(run)
    if claim is None or now_ns >= claim.until_ns:
        return f"its claim lapsed: not renewed for {LAPSE_S:g} s, and the site may be another drill's"
    return None if claims.halt is None else claims.halt.words


def lapsed(claims: Claims, now_ns: int) -> tuple[Claim, ...]:
    """The claims that nobody renewed in time."""
    return tuple(each for each in claims.by_site.values() if now_ns >= each.until_ns)


def taken_over(stored: Iterable[Claim], known: Claims, halt: Halt | None) -> Claims:
    """What the tables say, with the deadlines that are known already: reading again prolongs nothing.

    The deadline of a stored claim is the longest that it may have: nobody could renew while no server ran.
    """
    found: dict[str, Claim] = {}
    for claim in stored:
        here = known.of(claim.run)
        found[claim.site] = claim if here is None else replace(claim, until_ns=here.until_ns)
    return Claims(found, halt)
