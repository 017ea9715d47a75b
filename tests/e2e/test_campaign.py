"""What is shown against what is true: kills, freezes, full disks, dead hosts, and an oracle outside.

`ROUNDS=200 SEED=1 .venv/bin/pytest -m slow -s tests/e2e/test_campaign.py` is the whole one, about 40 minutes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from campaign import ROUNDS, Campaign, Reader, judge, plan, prober, small_disks
from running_lab import running

from engines import needs

SEED = int(os.environ.get("SEED", "1"))
MINUTES = float(os.environ.get("MINUTES", "60"))
DETECTION_S = 5.0


@pytest.mark.slow
@pytest.mark.e2e
@needs("root", "mount")
@pytest.mark.seed("order nothing green that is not: 200 rounds of kills, freezes, full disks, dead hosts")
def test_nothing_is_shown_better_than_it_is(tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "truth.jsonl"
    with small_disks(state), running(state) as lab, prober(state, log):
        reader, campaign = Reader(lab), Campaign(lab, SEED)
        reader.start()
        try:
            campaign.run(plan(ROUNDS, SEED), time.monotonic() + 60 * MINUTES)
        finally:
            reader.stop()
        found = judge(lab, reader, log, DETECTION_S)
    rounds = Counter(each["kind"] for each in campaign.did)
    print(
        f"{sum(rounds.values())} rounds, {campaign.returns} returns of hosts: {dict(rounds)}\n{found.figures}"
    )
    assert not found.wrong, f"SEED={SEED}:\n" + "\n".join(found.wrong)
    assert len(campaign.did) == ROUNDS, "it ended before its time was over"
    assert campaign.returns >= 30 or ROUNDS < 200
