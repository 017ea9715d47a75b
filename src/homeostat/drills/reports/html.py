"""A report as one page: no script, no file beside it, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from homeostat.drills.reports.drawing import picture
from homeostat.drills.reports.model import DrillReport
from homeostat.drills.reports.words import bounds, heading, limit, loads, remark, span
from homeostat.drills.verdicts.repeats import Repeats, statement


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("homeostat.drills"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"span": span, "bounds": bounds, "limit": limit, "remark": remark}
    made.filters |= {"heading": heading, "loads": loads}
    return made


def html(reports: Sequence[DrillReport], repeats: Sequence[Repeats] = ()) -> str:
    """The whole page, for one run or several."""
    template = _environment().get_template("report.html")
    told = [(each, statement(each)) for each in repeats]
    return template.render(runs=[(each, picture(each)) for each in reports], repeats=told)
