"""docs/configuration.md: made from the settings, and written as a file has them."""

from __future__ import annotations

import runpy
from pathlib import Path

from homeostat.drills.site import Site, SiteService

DOCS = Path(__file__).parents[2] / "docs"
MADE = runpy.run_path(str(DOCS / "make_configuration.py"))


def test_the_page_is_what_the_settings_say() -> None:
    assert (DOCS / "configuration.md").read_text() == MADE["page"](), "make docs"


def test_a_span_has_its_unit_and_can_be_written_into_a_file() -> None:
    rows = {name: default for name, default, _ in MADE["rows"](Site, "")}
    assert rows["services.NAME.down_at_most"] == "`10s`"
    hosts = {"n1": {"profile": "web"}}
    default = SiteService.model_validate({"hosts": hosts})
    written = SiteService.model_validate({"hosts": hosts, "down_at_most": "10s"})
    assert written.down_at_most_ms == default.down_at_most_ms


def test_every_setting_is_one_row() -> None:
    table = [line for line in MADE["page"]().split("\n## ", 1)[1].splitlines() if line]
    assert all(line.startswith("|") for line in table if not line.endswith(".yaml"))
