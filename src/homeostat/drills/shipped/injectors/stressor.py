"""One worker that keeps a processor or a disk busy. Standard library only; started by node_cpu and
node_disk.

It waits for a line on standard input before it does anything, so its identity is on disk first; when whoever
started it dies before, it just ends. It ends by itself at `--until`, on CLOCK_BOOTTIME, keeper or not. It
never makes a file and never grows one beyond `--bytes`.
"""

from __future__ import annotations

import argparse
import mmap
import os
import sys
import threading
import time

BLOCK = 4 << 20
"""Small blocks would keep the processor busy and not the disk."""
WRITERS = 8
_SECTOR = 4096


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def burn(until_ns: int) -> None:
    """Use the whole of one processor."""
    while now_ns() < until_ns:
        for _ in range(20_000):
            pass


def write_round(file: str, given: argparse.Namespace) -> None:
    """Write large blocks round and round the same file; stops when free space falls to the floor."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | (os.O_DIRECT if given.direct else os.O_DSYNC)
    handle = os.open(file, flags)
    if os.fstat(handle).st_ino != given.inode:
        raise SystemExit("this is not the file that was made")
    size = max(_SECTOR, min(BLOCK, given.bytes // WRITERS // _SECTOR * _SECTOR))
    parts = max(1, given.bytes // size // WRITERS)
    failed: list[OSError] = []

    def write(first: int) -> None:
        block = mmap.mmap(-1, size)
        block.write(os.urandom(size))
        number = 0
        while now_ns() < given.until and not failed:
            try:
                if number % 2 == 0:
                    _check_floor(handle, given.floor)
                os.pwrite(handle, block, (first + number % parts) * size)
            except OSError as error:
                failed.append(error)
            number += 1

    writers = [threading.Thread(target=write, args=(at * parts,)) for at in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    if failed:
        raise SystemExit(str(failed[0]))


def _check_floor(handle: int, floor: int) -> None:
    room = os.fstatvfs(handle)
    if room.f_bavail * room.f_frsize < floor:
        raise OSError("free space has fallen to the floor")


def main() -> None:
    """Say that we are ready, wait for the word, work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--until", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--file")
    parser.add_argument("--inode", type=int)
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--floor", type=int)
    parser.add_argument("--direct", action="store_true")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    print("ready", flush=True)
    if sys.stdin.readline() != "go\n":
        return
    burn(given.until) if given.file is None else write_round(given.file, given)


if __name__ == "__main__":
    main()
