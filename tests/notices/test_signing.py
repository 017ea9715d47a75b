"""The signature: what is accepted, and each way of being refused."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.errors import NotAllowed
from homeostat.notices.signing import sign, verify

BODY = b'{"notice":"s:f-1:raised"}'
KEYS = {"k1": "first-secret", "k2": "second-secret"}


def test_the_form_is_the_documented_one() -> None:
    mac = hmac.new(b"first-secret", b"1700000000." + BODY, hashlib.sha256).hexdigest()
    assert sign("first-secret", "k1", 1_700_000_000, BODY) == f"t=1700000000,kid=k1,v1={mac}"


@given(body=st.binary(max_size=200), key=st.sampled_from(["k1", "k2"]), off=st.floats(-300, 300))
def test_what_we_sign_is_accepted_within_the_tolerance(body: bytes, key: str, off: float) -> None:
    verify(sign(KEYS[key], key, 1_700_000_000, body), body, KEYS, 1_700_000_000 + off)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "no Homeostat-Signature"),
        ("", "is not t="),
        ("t=1,kid=k1", "is not t="),
        ("t=-5,kid=k1,v1=00", "is not t="),
        ("t=٣,kid=k1,v1=00", "is not t="),
        ("t=1,t=2,kid=k1,v1=00", "is not t="),
        ("t=1700000000,kid=k9,v1=00", "not known"),
        ("t=1700000000,kid=k1,v1=00", "does not fit"),
        ("t=1700000000,kid=k1,v1=é", "does not fit"),
        ("v1=" + "0" * 10_000, "is not t="),
        (sign("second-secret", "k1", 1_700_000_000, BODY), "does not fit"),
        (sign("first-secret", "k1", 1_700_000_000, BODY + b" "), "does not fit"),
        (sign("first-secret", "k1", 1_699_999_000, BODY), "old"),
        (sign("first-secret", "k1", 1_700_001_000, BODY), "old"),
        (sign("first-secret", "k1", 1_699_999_000, BODY).replace("t=1699999000", "t=1700000000"), "fit"),
    ],
)
def test_refusals(header: str | None, says: str) -> None:
    with pytest.raises(NotAllowed, match=says) as refused:
        verify(header, BODY, KEYS, 1_700_000_000)
    assert "secret" not in str(refused.value).replace("secrets differ", "")


@given(st.text(max_size=80))
def test_no_header_makes_it_fail_otherwise(header: str) -> None:
    with pytest.raises(NotAllowed):
        verify(header, BODY, KEYS, 1_700_000_000)
