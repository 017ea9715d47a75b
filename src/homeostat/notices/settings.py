"""The settings of notices. Each line: unit, what it is for, what breaks when it is too small or too large."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import Field

from homeostat.kernel.config import StrictSettings

Network = IPv4Network | IPv6Network
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class DeadManSettings(StrictSettings, frozen=True):
    """Where a sign of life goes: an endpoint that alarms when it stays out."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """The endpoint. Any network but link-local, metadata services and this server itself."""

    interval_s: _Seconds = 30.0
    """Seconds between two. The endpoint's own patience should be three times that. Too small: a short pause
    alarms people. Too large: nobody knows for that long that nobody watches."""

    secret_file: Path
    """A file with the secret that signs them, as notices are signed."""

    key_id: str = "dead-man"
    """What the signature calls that secret."""


class NoticesSettings(StrictSettings, frozen=True):
    """Part `notices` of server.yaml."""

    allowed_networks: tuple[Network, ...] = ()
    """Where webhooks may be. Empty: public addresses only. Otherwise exactly these networks. Too wide, and a
    consumer makes this server talk to machines that it cannot reach itself."""

    workers: _Count = 32
    """Sends at once. Too small: a storm of faults waits. Too large: many sockets and much memory."""

    sends_per_subscription: _Count = 8
    """Sends at once to one subscription. Too large: one slow consumer takes all workers."""

    sends_per_host: _Count = 16
    """Sends at once to one host and port. Too large: one hanging machine takes all workers."""

    connect_timeout_s: _Seconds = 2.0
    """Too small: far consumers are never reached. Too large: a dead machine holds a worker for longer."""

    total_timeout_s: _Seconds = 5.0
    """Until the consumer's status line. Too small: slow consumers get the same notice again and again."""

    first_wait_s: _Seconds = 0.2
    """Back-off: after the n-th failure first_wait_s * 2^(n-1), half of it jitter. Too small: a dead consumer
    is hammered. Too large: a hiccup delays a notice."""

    longest_wait_s: _Seconds = 30.0
    """The longest of these waits. Too large: a consumer that returned waits for its notices."""

    refused_first_wait_s: _Seconds = 5.0
    """first_wait_s after an answer that says that repeating will hardly help (3xx, most of 4xx)."""

    refused_longest_wait_s: _Seconds = 300.0
    """longest_wait_s after an answer that says that repeating will hardly help (3xx, most of 4xx)."""

    retry_after_longest_s: _Seconds = 300.0
    """A consumer's Retry-After is honoured up to here. Too large: a consumer may silence itself for long."""

    give_up_after_s: _Seconds = 86_400.0
    """Age of a notice that is not tried again. Too small: a consumer's outage loses notices. Too large:
    news of the day before yesterday."""

    circuit_after: _Count = 5
    """Failures in a row after which a subscription gets one probe at a time instead of its notices."""

    waiting_per_subscription: _Count = 10_000
    """Notices of one subscription in memory; more wait in the database. About 300 bytes each."""

    outcomes_waiting: _Count = 4_096
    """Outcomes not yet committed, above which nothing more is sent: that many would be sent twice."""

    progress_every_s: _Seconds = 30.0
    """How often attempts are written down for people; they are not needed to be right."""

    stop_timeout_s: _Seconds = 3.0
    """How long a stop waits for sends and outcomes; what is not finished is sent again after the start."""

    response_bytes_max: _Count = 65_536
    """Bytes of an answer that are read; the rest is cut off with its connection."""

    body_bytes_max: Annotated[int, Field(ge=4_096, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    """Bytes of a notice. A longer one carries counts and a link instead of the list of what is affected."""

    public_url: str = ""
    """Where people reach this server's API, for the links in notices. Empty: links are paths."""

    subscriptions_max: _Count = 1_000
    """Of all projects together. Each subscription costs memory, and time in the matching of every fault."""

    subscriptions_per_project: _Count = 100
    """Each subscription costs memory, and time in the matching of every fault."""

    silence_longest_s: _Seconds = 7 * 86_400.0
    """How long a silence may last. Too small: a long repair is silenced again and again. Too large: a
    forgotten one hides what people should know."""

    silences_max: _Count = 1_000
    """Silences that are not over, of all projects together, and a tenth of it of one project. Each costs
    time in the matching of every fault."""

    told_window_s: Annotated[float, Field(ge=60, le=30 * 86_400)] = 3600.0
    """Seconds over which the set points of notices are measured. Too small: a slow delivery is forgotten
    before anybody looks. Too large: what is long over is still shown as broken."""

    streams_max: _Count = 200
    """Readers of the stream of notices at once. Each costs a connection and reads of the database."""

    stream_heartbeat_s: _Seconds = 15.0
    """Silence on a stream after which a comment is sent. Too large: a proxy cuts the connection, and a
    reader learns late that the server is gone."""

    stream_stall_s: _Seconds = 30.0
    """How long one piece may wait for a reader who does not take it; then the stream is cut, and the reader
    replays from where it was. Too small: slow lines are cut. Too large: the dead hold connections."""

    dead_man: DeadManSettings | None = None
    """A sign of life for somebody else to watch. Absent: nobody hears that this server is silent."""
