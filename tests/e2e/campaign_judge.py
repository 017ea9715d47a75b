"""What an outside oracle says of a campaign: the story that Homeostat told against what was true.

The prober (truth_prober.py) wrote down what worked, the reader what was shown, the lab's consumer what was
told. `judge` compares them: nothing shown *up* that is dead for longer than the detection interval, nothing
*cleared* before it works, no key lost or sent twice with another meaning, and each outage's bounds hold the
prober's. Whatever breaks a promise is named with the round in which it did.
"""

from __future__ import annotations

import bisect
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from campaign import Reader
from running_lab import Lab

from homeostat.contracts.roles import LOOKED_EVERY_S
from homeostat.faults.settings import FaultsSettings
from homeostat.fleet.settings import FleetSettings
from homeostat.lab.plan import HOSTS, RESOURCES, StateDirectory

NANO = 1_000_000_000
FOR_EVER_NS = 2**63
HOLD_NS = round(FaultsSettings().clear_after_s * NANO)


@dataclass(frozen=True)
class TrueOutage:
    """From `died` to `back`, each as the earliest and the latest moment that it can have been (wall, ns)."""

    died: tuple[int, int]
    back: tuple[int, int]

    @property
    def bounds_ms(self) -> tuple[float, float]:
        return max(0, self.back[0] - self.died[1]) / 1e6, (self.back[1] - self.died[0]) / 1e6


def one_story(truth: Sequence[TrueOutage], raised_ns: int, ended_ns: int) -> TrueOutage | None:
    """What a fault of this time is about; None when that cannot be told apart.

    A thing that fails again before it was right for its hold goes on with the same fault, whose outage is
    from the first failure to the last return: these are one.
    """
    within = [each for each in truth if raised_ns < each.back[0] and each.died[0] < ended_ns]
    if not within:
        within = [
            each for each in truth if each.died[0] - NANO <= raised_ns and raised_ns <= each.back[1] + NANO
        ]
        within = within if len(within) == 1 else []
    right_ns = (after.died[0] - before.back[1] for before, after in pairwise(within))
    if not within or any(pause_ns > HOLD_NS for pause_ns in right_ns):
        return None
    return TrueOutage(within[0].died, within[-1].back)


def true_outages(log: Path) -> dict[str, list[TrueOutage]]:
    """What the prober saw of each resource; one that has not ended goes on for ever."""
    found: dict[str, list[TrueOutage]] = defaultdict(list)
    died: dict[str, tuple[int, int]] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        if "works" not in line:
            continue
        name, moment = line["resource"], (line["old_ns"][0], line["new_ns"][1])
        if not line["works"]:
            died[name] = moment
        elif name in died:
            found[name].append(TrueOutage(died.pop(name), moment))
    for name, since in died.items():
        found[name].append(TrueOutage(since, (FOR_EVER_NS, FOR_EVER_NS)))
    return found


def unseen(log: Path) -> dict[str, list[tuple[int, int]]]:
    """Where the prober was late: nothing is known of a resource there."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in map(json.loads, log.read_text().splitlines()):
        if "gap_ns" in line:
            found[line["resource"]].append(tuple(line["gap_ns"]))
    return found


@dataclass
class Judgement:
    """`wrong` is what breaks a promise; `figures` what is said in the report. `rounds` are those that were
    done, in their order; `outside` the outages whose bounds do not hold the truth."""

    rounds: Sequence[Mapping[str, Any]] = ()
    wrong: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def within(self, at_ns: int) -> str:
        """The round in which this moment lies."""
        number = bisect.bisect_right([each["at_ns"] for each in self.rounds], at_ns)
        if not number:
            return "before the first round"
        of = self.rounds[number - 1]
        return f"round {of['round']}, {of['kind']}, {(at_ns - of['at_ns']) / NANO:.2f} s after it began"


BUSY_S = 1.0
"""A look of a monitor, a message and a sweep take so long on a machine of two cores that others use, too."""


def detection_s(lab: Lab) -> float:
    """How long a thing that is dead may be shown as up, by the lab's own settings.

    A process that ends is seen at once; one that is frozen by its next monitor. What nobody looks at
    any more, or nobody speaks of, is unknown after the patience with the runner and with its node.
    """
    state = StateDirectory(lab.directory)
    resources = yaml.safe_load(state.node_config_file(HOSTS[0]).read_text())["runner"]["resources"]
    monitor_s = max(each["operations"]["monitor"]["interval_s"] for each in resources)
    fleet = FleetSettings(**yaml.safe_load(state.server_config_file.read_text())["fleet"])
    silent_s = fleet.lost_after_s + LOOKED_EVERY_S + fleet.sweep_s
    return float(max(monitor_s, silent_s)) + BUSY_S


def open_ends(lab: Lab) -> list[tuple[str, str]]:
    """Who was told of which fault, and not yet of its end."""
    last: dict[tuple[str, str], str] = {}
    for line in (lab.directory / "heard.jsonl").read_text().splitlines():
        body = json.loads(line)["body"]
        last[body["notice"].split(":")[0], body["fault"]["id"]] = body["transition"]
    return [told for told, transition in last.items() if transition == "raised"]


def judge(lab: Lab, reader: Reader, log: Path, rounds: Sequence[Mapping[str, Any]]) -> Judgement:
    """Compare what was shown and told with what was true."""
    found = Judgement(rounds)
    truth = true_outages(log)
    _shown_up(found, reader, truth, detection_s(lab))
    _told(found, lab, truth)
    _bounds(found, lab, truth, unseen(log))
    return found


def _shown_up(
    found: Judgement, reader: Reader, truth: Mapping[str, list[TrueOutage]], limit_s: float
) -> None:
    longest: dict[tuple[str, int], float] = {}
    for asked_ns, answered_ns, rows in reader.shown:
        for name, state in rows.items():
            if state != "up":
                continue
            for outage in truth.get(name, ()):
                if outage.died[1] < asked_ns and answered_ns < outage.back[0]:
                    since_s = (asked_ns - outage.died[1]) / 1e9
                    key = name, outage.died[1]
                    longest[key] = max(since_s, longest.get(key, 0.0))
    found.figures["looks"] = len(reader.shown)
    found.figures["may be shown up while dead, s"] = limit_s
    found.figures["longest shown up while dead, s"] = round(max(longest.values(), default=0.0), 2)
    found.wrong += [
        f"{name} shown up {since_s:.1f} s after it died ({found.within(died_ns)})"
        for (name, died_ns), since_s in longest.items()
        if since_s > limit_s
    ]


def _told(found: Judgement, lab: Lab, truth: Mapping[str, list[TrueOutage]]) -> None:
    """Nothing is told as right while it does not work; each key has one meaning, each fault one beginning."""
    meaning: dict[str, str] = {}
    order: dict[tuple[str, str], list[str]] = defaultdict(list)
    at_home = {f"node/{each.host}": str(each.id) for each in RESOURCES if not each.movable}
    for line in (lab.directory / "heard.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["status"] != 200:
            found.wrong.append(f"refused: {entry}")
            continue
        body = entry["body"]
        key, fault = body["notice"], body["fault"]
        said = f"{fault['id']} {body['transition']}"
        if meaning.setdefault(key, said) != said:
            found.wrong.append(f"key {key} says {meaning[key]} and {said}")
        order[key.split(":")[0], fault["id"]].append(body["transition"])
        if body["transition"] != "cleared" or fault["kind"] not in ("resource_down", "host_down"):
            continue
        name = at_home.get(fault["about"], fault["about"].removeprefix("resource/"))
        # A host's is the moment of its return; that its service works again is what the telling says.
        is_host = fault["kind"] == "host_down"
        at_ns = entry["received_at_ns"] if is_host else _moment(fault["cleared_at"])
        for outage in truth.get(name, ()):
            if outage.died[1] < at_ns - is_host * NANO and at_ns < outage.back[0]:
                late_s, to = (outage.back[0] - at_ns) / 1e9, key.split(":")[0]
                found.wrong.append(
                    f"{name}: {fault['kind']} {said}, {late_s:.3f} s before it works, told to {to}"
                    f" ({fault.get('cleared_reason')}; {found.within(at_ns)})"
                )
    for (subscription, fault_id), transitions in order.items():
        once = list(dict.fromkeys(transitions))  # a key may come again
        if once[0] not in ("raised", "superseded") or "cleared" in once[:-1]:
            found.wrong.append(f"{subscription}: fault {fault_id} told {transitions}")
        if once[-1] == "raised":
            found.wrong.append(f"{subscription}: the end of fault {fault_id} was never told")
    found.figures["notices"] = sum(map(len, order.values()))


def _moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * NANO)


def all_faults(lab: Lab) -> list[dict[str, Any]]:
    """The faults of the lab, newest first; a thousand, which is more than a campaign makes."""
    items: list[dict[str, Any]] = lab.client.call("GET", "/faults", limit="1000")["items"]
    return items


def _said(lab: Lab) -> Iterator[tuple[str, str, tuple[int, int], float | None, float | None]]:
    """Fault, resource, when it began and ended (wall, ns) and bounds of each outage that Homeostat speaks
    of."""
    for fault in all_faults(lab):
        raised_ns = _moment(fault["raised_at"])
        if fault["about"].startswith("resource/") and fault["state"] == "cleared":
            name = fault["about"].removeprefix("resource/")
            when = raised_ns, _moment(fault["cleared_at"])
            yield fault["id"], name, when, fault["outage_lower_ms"], fault["outage_upper_ms"]
        for each in fault["affected"]:
            if (back := each["recovered"]) is not None:
                name = each["subject"].removeprefix("resource/")
                when = raised_ns, _moment(back["at"])
                yield fault["id"], name, when, back["outage_lower_ms"], back["outage_upper_ms"]


def _bounds(
    found: Judgement,
    lab: Lab,
    truth: Mapping[str, list[TrueOutage]],
    gaps: Mapping[str, list[tuple[int, int]]],
) -> None:
    """Each outage with bounds holds the truth of the prober."""
    counts: Counter[str] = Counter({"outages compared": 0, "bounds held": 0})
    for fault, name, when, lower_ms, upper_ms in _said(lab):
        if lower_ms is None and upper_ms is None:
            counts["outages without bounds"] += 1
            continue
        true = one_story(truth.get(name, ()), *when)
        if true is None or any(a < true.back[1] and true.died[0] < b for a, b in gaps.get(name, ())):
            counts["outages that the prober cannot tell apart"] += 1
            continue
        counts["outages compared"] += 1
        counts["of them without an upper bound"] += upper_ms is None
        low, high = true.bounds_ms
        if (lower_ms or 0.0) <= high and (upper_ms is None or low <= upper_ms):
            counts["bounds held"] += 1
        else:
            said = f"{fault} {name}: said [{lower_ms}, {upper_ms}], is [{low:.0f}, {high:.0f}] ms"
            found.outside.append(f"{said} ({found.within(true.died[0])})")
    found.figures |= counts
    compared, held = counts["outages compared"], counts["bounds held"]
    if not compared or held < 0.99 * compared:
        found.wrong.append(f"{compared - held} of {compared} outages are not within their bounds")
    if counts["of them without an upper bound"] > compared / 3:
        found.wrong.append("most outages have no upper bound: nothing is compared")
