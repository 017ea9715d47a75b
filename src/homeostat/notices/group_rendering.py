"""The body of several notices in one POST. Pure.

    {"notices": [<notice>, <notice>, ...]}

Each notice is the very body that it has when it travels alone, with its own key in `notice`; a consumer drops
those whose key it has handled. Nothing else is in it, so the same notices are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

_HEAD, _TAIL, _BETWEEN = b'{"notices":[', b"]}", b","
ENVELOPE_BYTES = len(_HEAD) + len(_TAIL)
"""What the envelope adds to a single notice."""


def render_group(bodies: Sequence[bytes]) -> bytes:
    """The body of these notices, each of which is a JSON object, in their order."""
    return _HEAD + _BETWEEN.join(bodies) + _TAIL


def size_of(count: int, content_bytes: int) -> int:
    """How long the body of `count` notices is that are `content_bytes` long together."""
    return ENVELOPE_BYTES + content_bytes + max(0, count - 1) * len(_BETWEEN)
