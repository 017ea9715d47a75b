"""A disk image of our own making, for sites that name none: valid qcow2, empty, 1 MiB to a guest.

Nothing boots from it. A cloud that starts guests for real needs `cloud.image_file` of the site.
"""

from __future__ import annotations

import struct

_MAGIC = 0x514649FB
_VERSION = 3
_CLUSTER_BITS = 9
_CLUSTER = 1 << _CLUSTER_BITS
_VIRTUAL = 1 << 20
_HEADER_LENGTH = 104
_REFCOUNT_ORDER = 4
_L1_ENTRIES = _VIRTUAL // (_CLUSTER * (_CLUSTER // 8))
MADE_UP = "images are a made-up empty disk of 2 KiB: the site names no cloud.image_file"


def tiny_qcow2() -> bytes:
    """Four clusters: header, table of reference counts, one block of them, and the table of the disk."""
    at_refcounts, at_block, at_l1 = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
    header = struct.pack(
        ">IIQIIQIIQQIIQQQQII",
        *(_MAGIC, _VERSION, 0, 0, _CLUSTER_BITS, _VIRTUAL, 0),
        *(_L1_ENTRIES, at_l1, at_refcounts, 1, 0, 0),
        *(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH),
    )
    clusters = (
        header,
        struct.pack(">Q", at_block),
        struct.pack(">4H", 1, 1, 1, 1),
        b"",
    )
    return b"".join(each.ljust(_CLUSTER, b"\0") for each in clusters)
