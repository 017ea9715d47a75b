"""A schedule that the kernel keeps: absolute, on CLOCK_BOOTTIME, to the nanosecond, and missed ticks counted.

A timerfd, because an event loop's own timers know whole milliseconds only. Python has one from 3.13 on; until
then it is called in the C library.
"""

from __future__ import annotations

import ctypes
import os
import time

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_NS_PER_S = 1_000_000_000
_ONE = (1).to_bytes(8, "little")
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Ticks:
    """Readable once a tick is due; `fd` is for the event loop. To be closed."""

    __slots__ = ("_due_ns", "_period_ns", "fd")

    def __init__(self, first_ns: int, period_ns: int) -> None:
        """The first tick at `first_ns` of CLOCK_BOOTTIME, then one a period for ever."""
        self.fd = _checked(_libc.timerfd_create(time.CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC))
        setting = _Itimerspec(
            _Timespec(*divmod(period_ns, _NS_PER_S)), _Timespec(*divmod(first_ns, _NS_PER_S))
        )
        _checked(_libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None))
        self._due_ns, self._period_ns = first_ns, period_ns

    def take(self) -> tuple[int, int] | None:
        """When the earliest tick not yet taken was due, and how many more were missed; None too early."""
        try:
            told = os.read(self.fd, 8)
        except BlockingIOError:
            return None
        missed = 0 if told == _ONE else int.from_bytes(told, "little") - 1
        due_ns = self._due_ns
        self._due_ns = due_ns + self._period_ns + missed * self._period_ns
        return due_ns, missed

    def close(self) -> None:
        """No more ticks."""
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
