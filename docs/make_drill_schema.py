"""Write docs/drill-report.schema.json from the report's own model: `make docs`."""

from __future__ import annotations

import json
from pathlib import Path

from homeostat.drills.reports.model import schema


def page() -> str:
    """The whole file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("drill-report.schema.json").write_text(page(), encoding="utf-8")
