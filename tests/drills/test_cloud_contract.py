"""What a cloud's driver promises: on a small OpenStack, and, where HOMEOSTAT_CLOUDS is given, on a real one.

HOMEOSTAT_CLOUDS=FILE is a clouds.yaml; HOMEOSTAT_CLOUD=NAME the cloud in it (testbed). Everything that a test
makes there has a name of its own and is deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from small_openstack import SmallOpenstack, small_openstack

from engines import leave_out
from homeostat.drills.actions import CLOUD_OBJECT_KINDS, CloudAction, CloudObjectKind, CloudOperation
from homeostat.drills.clouds.connection import (
    Calls,
    CloudObjectRequest,
    CloudObjectState,
    UserCloud,
    tiny_qcow2,
)
from homeostat.drills.clouds.openstack import Openstack
from homeostat.drills.planning.service_client import ServiceAnswer
from homeostat.drills.records.evidence import Ledger
from homeostat.drills.running.operations import CloudOperationContext, CloudOperations
from homeostat.drills.site import SiteCloud
from homeostat.kernel.errors import BadInput, GiveUp, HomeostatError, NotFound, RetryLater

# The library warns of what it does itself.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "PendingDeprecationWarning")
]
CALL_S = 60.0
RUN = f"contract-{os.getpid()}-{time.time_ns()}"


@pytest.fixture
def small() -> Iterator[SmallOpenstack]:
    """A small one of its own for each test."""
    with small_openstack() as made:
        yield made


@pytest.fixture
def small_cloud(small: SmallOpenstack, tmp_path: Path) -> Iterator[UserCloud]:
    """The driver on the small one."""
    cloud = Openstack(SiteCloud(name="small", clouds_file=small.clouds_file(tmp_path)))
    yield cloud
    cloud.close()


@pytest.fixture(params=["small", pytest.param("real", marks=[pytest.mark.openstack, pytest.mark.slow])])
def cloud(request: pytest.FixtureRequest) -> Iterator[UserCloud]:
    """Each engine of the contract; nothing of ours is left in it."""
    if request.param == "small":
        yield request.getfixturevalue("small_cloud")
        return
    file = os.environ.get("HOMEOSTAT_CLOUDS")
    if file is None:
        leave_out("cloud")
    name = os.environ.get("HOMEOSTAT_CLOUD", "testbed")
    made = Openstack(SiteCloud(name=name, clouds_file=Path(file)))
    try:
        yield made
    finally:
        for what in reversed(CLOUD_OBJECT_KINDS):
            within(lambda what=what: not left(made, what), f"no {what} of ours is left")
        made.close()


def left(cloud: UserCloud, what: CloudObjectKind) -> bool:
    """Whether one of ours is there; it is asked to go, which it may not want to yet."""
    found = cloud.ids(what, name_of(what), CALL_S)
    for id in found:
        with suppress(HomeostatError):
            cloud.delete(what, id, CALL_S)
    return bool(found)


def name_of(what: CloudObjectKind) -> str:
    """Of the one thing of this kind."""
    return f"homeostat-{RUN}-{what}"


def made(cloud: UserCloud, what: CloudObjectKind, **more: str) -> str:
    """A thing of this kind; its id."""
    wanted = CloudObjectRequest(
        what, name_of(what), "a test of homeostat; deleted after it", tiny_qcow2(), **more
    )
    return cloud.create(wanted, CALL_S)


def within(ask: Callable[[], object], what: str, deadline_s: float = 120.0) -> None:
    """Until it is so."""
    end_s = time.monotonic() + deadline_s
    while not ask():
        assert time.monotonic() < end_s, f"never within {deadline_s} s: {what}"
        time.sleep(0.2)


def lives(cloud: UserCloud, what: CloudObjectKind, **more: str) -> str:
    """It is made, in the list by its very name, and active; its id."""
    id = made(cloud, what, **more)
    assert cloud.ids(what, name_of(what), CALL_S) == (id,)
    if what != "flavor":
        within(lambda: cloud.state(what, id, CALL_S).reached == "active", f"{what} is active")
    assert cloud.list(what, CALL_S) >= 1
    return id


def goes(cloud: UserCloud, what: CloudObjectKind, id: str) -> None:
    """It is deleted, and gone from the list; then there is no such thing."""
    cloud.delete(what, id, CALL_S)
    within(lambda: not cloud.ids(what, name_of(what), CALL_S), f"{what} is gone")
    with pytest.raises(NotFound):
        cloud.delete(what, id, CALL_S)


@pytest.mark.seed("000 create an image, a flavor and a server, see it active, delete it, see it gone")
def test_a_server_of_an_image_and_a_flavor_lives_and_goes(cloud: UserCloud) -> None:
    image, flavor = lives(cloud, "image"), lives(cloud, "flavor")
    server = lives(cloud, "server", image=image, flavor=flavor)
    goes(cloud, "server", server)
    goes(cloud, "image", image)
    goes(cloud, "flavor", flavor)


@pytest.mark.seed("000 create a network, see it active, delete it, see it gone")
@pytest.mark.parametrize("what", ["network", "router", "volume"])
def test_things_of_their_own_live_and_go(cloud: UserCloud, what: CloudObjectKind) -> None:
    if (why := cloud.lacks(what, CALL_S)) is not None:
        pytest.skip(why)
    goes(cloud, what, lives(cloud, what))


def test_only_the_very_name_is_found(cloud: UserCloud) -> None:
    id = made(cloud, "network")
    assert cloud.ids("network", name_of("network")[:-1], CALL_S) == ()
    assert cloud.ids("network", name_of("network") + "s", CALL_S) == ()
    goes(cloud, "network", id)


@pytest.mark.parametrize("what", CLOUD_OBJECT_KINDS)
def test_what_was_never_made_is_not_found(cloud: UserCloud, what: CloudObjectKind) -> None:
    assert cloud.ids(what, name_of(what), CALL_S) == ()
    nowhere = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(NotFound):
        cloud.delete(what, nowhere, CALL_S)
    if what != "flavor":
        with pytest.raises(NotFound):
            cloud.state(what, nowhere, CALL_S)


def test_what_the_cloud_does_not_want_is_given_up(cloud: UserCloud) -> None:
    image = made(cloud, "image")
    nowhere = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(HomeostatError) as refused:
        made(cloud, "server", image=image, flavor=nowhere)
    assert not isinstance(refused.value, RetryLater) and "\n" not in str(refused.value)
    assert cloud.ids("server", name_of("server"), CALL_S) == ()
    goes(cloud, "image", image)


def test_without_time_nothing_is_made(cloud: UserCloud) -> None:
    with pytest.raises(RetryLater):
        cloud.create(CloudObjectRequest("network", name_of("network"), "never made"), 0.0)
    assert cloud.ids("network", name_of("network"), CALL_S) == ()


def test_a_closed_one_asks_nothing_more(small: SmallOpenstack, small_cloud: UserCloud) -> None:
    assert small_cloud.list("server", CALL_S) == 0
    asked = len(small.asked)
    small_cloud.close()
    with pytest.raises(RetryLater):
        made(small_cloud, "network")
    assert len(small.asked) == asked


@pytest.mark.seed("000 I19 a status in any case is understood, and ERROR fails at once with its reason")
@pytest.mark.parametrize(
    ("word", "reached"),
    [("ACTIVE", "active"), ("active", "active"), ("Available", "active"), ("ERROR", "failed"),
     ("error_deleting", "failed"), ("killed", "failed"), ("BUILD", "not yet"), ("queued", "not yet"),
     ("creating", "not yet"), ("DOWN", "not yet")],
)  # fmt: skip
def test_words_of_a_state(word: str, reached: str) -> None:
    assert CloudObjectState(word).reached == reached


def test_the_fault_of_a_server_is_told(small: SmallOpenstack, small_cloud: UserCloud) -> None:
    small.fails["server"] = "No valid host was found."
    image, flavor = made(small_cloud, "image"), made(small_cloud, "flavor")
    id = made(small_cloud, "server", image=image, flavor=flavor)
    within(lambda: small_cloud.state("server", id, CALL_S).reached == "failed", "it fails")
    assert small_cloud.state("server", id, CALL_S).fault == "No valid host was found."


def test_a_silent_service_ends_with_its_time(small: SmallOpenstack, small_cloud: UserCloud) -> None:
    small.silent.add(("POST", "network"))
    assert small_cloud.list("network", CALL_S) == 0
    with pytest.raises(RetryLater):
        small_cloud.create(CloudObjectRequest("network", name_of("network"), "made, and nobody is told"), 0.5)
    assert small.names("network") == [name_of("network")]
    assert small.requests("POST", "network") == 1, "never asked twice"


@pytest.mark.parametrize(
    ("status", "kind"), [(503, RetryLater), (500, RetryLater), (403, GiveUp), (409, GiveUp)]
)
def test_an_error_says_whether_it_may_have_been_made(
    small: SmallOpenstack, small_cloud: UserCloud, status: int, kind: type[HomeostatError]
) -> None:
    small.refuses["POST", "network"] = (status, "as it is")
    with pytest.raises(kind, match="as it is"):
        made(small_cloud, "network")
    assert small.requests("POST", "network") == 1, "never asked twice"


def test_an_answer_that_is_none_is_never_an_empty_list(small: SmallOpenstack, small_cloud: UserCloud) -> None:
    small.refuses["GET", "network"] = (200, "not what was asked for")
    with pytest.raises(RetryLater, match="an answer that is none"):
        small_cloud.ids("network", name_of("network"), CALL_S)


def test_a_service_that_is_not_in_the_catalogue_is_lacking(
    small: SmallOpenstack, small_cloud: UserCloud
) -> None:
    small.services = {kind: path for kind, path in small.services.items() if kind != "volumev3"}
    assert small_cloud.lacks("volume", CALL_S) == "the cloud has no block-storage service"
    assert small_cloud.lacks("server", CALL_S) is None


def test_a_wrong_password_is_given_up_and_not_told(small: SmallOpenstack, tmp_path: Path) -> None:
    file = small.clouds_file(tmp_path)
    file.write_text(file.read_text().replace("planted-secret", "another-secret"))
    with pytest.raises(GiveUp) as refused:
        Openstack(SiteCloud(name="small", clouds_file=file)).list("server", CALL_S)
    assert "another-secret" not in str(refused.value)


def test_a_cloud_that_no_file_describes_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {}\n")
    with pytest.raises(BadInput, match=r"clouds\.yaml"):
        Openstack(SiteCloud(name="nowhere", clouds_file=tmp_path / "clouds.yaml"))


def test_the_image_that_is_made_up_is_uploaded_whole(small: SmallOpenstack, small_cloud: UserCloud) -> None:
    id = made(small_cloud, "image")
    assert bytes.fromhex(small.things["image"][id]["content"]) == tiny_qcow2()
    assert small.things["image"][id]["tags"] == ["homeostat"]


def test_a_file_is_uploaded_as_an_image(
    small: SmallOpenstack, small_cloud: UserCloud, tmp_path: Path
) -> None:
    (tmp_path / "disk.qcow2").write_bytes(tiny_qcow2() * 2)
    id = small_cloud.create(
        CloudObjectRequest("image", name_of("image"), "of a file", tmp_path / "disk.qcow2"), CALL_S
    )
    assert bytes.fromhex(small.things["image"][id]["content"]) == tiny_qcow2() * 2


@pytest.mark.seed("000 R7.5 whether the flavor is there is seen in the list, by its very id")
async def test_a_flavor_has_the_size_that_is_asked_for_and_is_looked_for_itself(
    small: SmallOpenstack, small_cloud: UserCloud, tmp_path: Path
) -> None:
    def step(does: CloudAction, ram_mib: int | None = None) -> CloudOperation:
        return CloudOperation(does, "cloud", does, "flavor", deadline_ms=3_000, ram_mib=ram_mib)

    with Ledger(tmp_path) as ledger:
        steps = CloudOperations(small_cloud, CloudOperationContext(RUN, "small", Calls(), ledger, b""), {})
        assert not (await steps.do(step("there"))).ok, "nothing was made"
        assert (await steps.do(step("create", 100))).ok
        (flavor,) = small.things["flavor"].values()
        assert (flavor["ram"], flavor["disk"], flavor["vcpus"]) == (100, 1, 1)
        assert await steps.do(step("there")) == ServiceAnswer(True, f"{name_of('flavor')} is in the list")
        small.things["flavor"].clear()
        assert (await steps.do(step("list"))).ok, "an empty list is one"
        other = made(small_cloud, "flavor")
        assert small.things["flavor"][other]["ram"] == 512
        gone = await steps.do(step("there"))
        assert gone == ServiceAnswer(False, f"{name_of('flavor')} is not in the list"), (
            "another one of its name"
        )
