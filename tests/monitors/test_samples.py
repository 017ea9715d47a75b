"""A monitor's file: what is written is read, and what a killed monitor leaves is no error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import CorruptState
from homeostat.monitors.outage import ProbeAnswer, Sample, read_samples, sample_line, samples_of

moments = st.integers(0, 1 << 62)


@given(
    st.builds(
        Sample, moments, moments, moments, st.sampled_from(ProbeAnswer), st.booleans(), st.integers(0, 999)
    )
)
def test_a_line_is_its_sample(sample: Sample) -> None:
    assert samples_of([sample_line(sample)]) == (sample,)


def test_the_half_line_of_a_killed_monitor_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(sample_line(Sample(1, 2, 3, ProbeAnswer.OK)) + "[4,5,6,")
    assert read_samples(path) == (Sample(1, 2, 3, ProbeAnswer.OK),)


def test_samples_come_by_the_time_they_were_sent() -> None:
    late, early = Sample(1, 2, 9, ProbeAnswer.TIMEOUT), Sample(0, 1, 8, ProbeAnswer.OK)
    assert samples_of([sample_line(late), sample_line(early)]) == (early, late)


@pytest.mark.parametrize("line", ["[1,2,3]\n", "nonsense\n", '[1,2,3,"well",0,0]\n', "{}\n"])
def test_a_line_that_is_no_sample_is_named(line: str) -> None:
    with pytest.raises(CorruptState, match="line 2"):
        samples_of([sample_line(Sample(1, 2, 3, ProbeAnswer.OK)), line])


def test_no_file_is_no_sample(tmp_path: Path) -> None:
    assert read_samples(tmp_path / "absent") == ()
