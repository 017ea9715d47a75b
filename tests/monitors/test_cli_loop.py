"""The benchmark's re-creation of the command-line loop errs as the closed form of its algorithm says."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "bench" / "outage_cli_loop.py"
spec = importlib.util.spec_from_file_location("outage_cli_loop", PATH)
assert spec is not None and spec.loader is not None
cli_loop = importlib.util.module_from_spec(spec)
sys.modules["outage_cli_loop"] = cli_loop
spec.loader.exec_module(cli_loop)


def reported(length_s: float, offset_s: float, out_s: float, truth_s: float) -> float:
    """One measurement in virtual time: every call takes `length_s`, its request goes out at `offset_s`."""
    now_s = 0.0

    def call() -> bool:
        nonlocal now_s
        asked_s = now_s + offset_s
        now_s += length_s
        return not out_s <= asked_s < out_s + truth_s

    return float(cli_loop.outage_s(cli_loop.loop(call, lambda: now_s, out_s + truth_s + 5 * length_s)))


@given(
    length_ms=st.integers(100, 9_000),
    offset=st.floats(0, 0.99),
    out_ms=st.integers(20_000, 40_000),
    truth_ms=st.integers(1, 20_000),
)
def test_it_errs_as_the_closed_form_says(length_ms: int, offset: float, out_ms: int, truth_ms: int) -> None:
    length, out, truth = length_ms / 1000, out_ms / 1000, truth_ms / 1000
    asks = offset * length
    # u: from the beginning of the outage to the first request within or after it.
    until_first = (math.ceil((out - asks) / length) * length + asks) - out
    calls = max(0, math.ceil((truth - until_first) / length))
    measured = reported(length, asks, out, truth)
    # At the very edge of a request rounding may count one call more or less.
    edge = min(until_first, length - until_first, abs(truth - until_first) % length) < 1e-6
    edge = edge or length - abs(truth - until_first) % length < 1e-6
    assert abs(measured - calls * length) < (length + 1e-6 if edge else 1e-6)
    assert -length - 1e-6 < measured - truth < length + 1e-6


def test_an_outage_shorter_than_a_call_is_mostly_missed() -> None:
    missed = sum(reported(1.5, 0.7, 10 + phase * 0.015, 0.5) == 0 for phase in range(100))
    assert 64 <= missed <= 69  # 1 - T/L


def test_five_seconds_cannot_be_decided_with_calls_of_one_and_a_half() -> None:
    below = {round(reported(1.5, 0.7, 10 + phase * 0.05, 4.9), 3) for phase in range(30)}
    above = {round(reported(1.5, 0.7, 10 + phase * 0.05, 5.1), 3) for phase in range(30)}
    assert below == above == {4.5, 6.0}
