"""What is shown against what is true: kills, freezes, full disks, dead hosts, and an oracle outside.

`ROUNDS=200 SEED=1 .venv/bin/pytest -m slow -s tests/e2e/test_campaign.py` is the whole one, about 25 minutes.
`KINDS="host dead;nats killed"` does rounds of these kinds only; `MINUTES` ends it earlier.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from campaign import Campaign, Reader, plan, prober, small_disks
from campaign_judge import judge, open_ends
from running_lab import eventually, running

from engines import needs

ROUNDS = int(os.environ.get("ROUNDS", "14"))
"""Of a test run; the whole campaign has 200."""
KINDS = tuple(filter(None, os.environ.get("KINDS", "").split(";")))
SEED = int(os.environ.get("SEED", "1"))
MINUTES = float(os.environ.get("MINUTES", "60"))
LAST_END_S = 20
"""The end of the last round may be on its way to its consumers."""


@pytest.mark.slow
@pytest.mark.e2e
@needs("root", "mount")
@pytest.mark.seed("order nothing green that is not: 200 rounds of kills, freezes, full disks, dead hosts")
def test_nothing_is_shown_better_than_it_is(tmp_path: Path) -> None:
    broken: list[str] = []
    state, log = tmp_path / "state", tmp_path / "truth.jsonl"
    with small_disks(state), running(state) as lab, prober(state, log):
        reader, campaign = Reader(lab), Campaign(lab, SEED)
        reader.start()
        try:
            campaign.run(plan(ROUNDS, SEED, KINDS), time.monotonic() + 60 * MINUTES)
            eventually(lambda: not open_ends(lab), LAST_END_S, "every end is told")
        except AssertionError as error:  # what was seen until then is judged all the same
            broken.append(str(error))
        finally:
            reader.stop()
        found = judge(lab, reader, log, campaign.did)
        found.wrong += broken
    rounds = Counter(each["kind"] for each in campaign.did)
    print(
        f"{sum(rounds.values())} rounds, {campaign.returns} returns of hosts: {dict(rounds)}\n{found.figures}"
    )
    print(*found.outside, sep="\n")
    assert not found.wrong, f"SEED={SEED}:\n" + "\n".join(found.wrong)
    assert len(campaign.did) == ROUNDS, "it ended before its time was over"
    assert campaign.returns >= 30 or ROUNDS < 200
