"""Hostile webhook URLs: in the text, behind a name, and by addresses in disguise."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from homeostat.kernel.errors import BadInput
from homeostat.notices.targets import AddressGuard, check, choose, faces, is_public, make_guard, parse

PUBLIC = AddressGuard()
EVERYTHING = AddressGuard((ip_network("0.0.0.0/0"), ip_network("::/0")))
LAB = AddressGuard((ip_network("127.0.0.0/8"),))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/hear",
        "https://hooks.example.com:8443/a/b?c=d&e=%20",
        "HTTPS://Hooks.Example.COM",
        "http://xn--bcher-kva.example/",
        "http://93.184.216.34/hear",
        "http://[2606:2800:220:1:248:1893:25c8:1946]:80/",
        "http://under_score.example/",
    ],
)
def test_public_targets_are_accepted(url: str) -> None:
    assert check(url, PUBLIC).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "http:hooks.example.com",
        "http:/hooks.example.com",
        "http:///hear",
        "http://",
        "http://user@hooks.example.com/",
        "http://user:pass@hooks.example.com/",
        "http://93.184.216.34@127.0.0.1/",
        "http://hooks.example.com\\@127.0.0.1/",
        "http://hooks.example.com#@127.0.0.1/",
        "http://hooks.example.com/#fragment",
        "http://hooks.example.com/a b",
        "http://hooks.example.com/\r\nHost: x",
        "http://hooks.example.com/\x00",
        " http://hooks.example.com/",
        "http://hooks.example.com/\n",
        "http://hooks.example.com:0/",
        "http://hooks.example.com:65536/",
        "http://hooks.example.com:99999999/",
        "http://hooks.example.com:-1/",
        "http://hooks.example.com:8o/",
        "http://hooks.example.com:/",
        "http://hooks.example.com./",
        "http://127.0.0.1./",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0/",
        "http://127.0.0.01/",
        "http://127.0.0.1.0x1/",
        "http://a.b.c.7/",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "http://１２７.0.0.1/",
        "http://%31%32%37.0.0.1/",
        "http://hooks%2eexample.com/",
        "http://bücher.example/",
        "http://[::1/",
        "http://[::ffff:7f00:1%25eth0]/",
        "http://[fe80::1%25eth0]/",
        "http://[::g]/",
        "http://::1/",
        "http://[v1.fe80::a]/",
        "http://-hooks.example.com/",
        "http://hooks..example.com/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 130 + "example/",
        "http://hooks.example.com/" + "a" * 2048,
    ],
)
@pytest.mark.parametrize("allowed", [PUBLIC, EVERYTHING])
def test_what_is_refused_by_its_text(url: str, allowed: AddressGuard) -> None:
    with pytest.raises(BadInput) as refused:
        check(url, allowed)
    message = str(refused.value)
    assert message.startswith("url: ")
    assert "\n" not in message
    assert "pass" not in message.replace("password", "").replace("/etc/passwd", "")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b:1::a9fe:a9fe", "metadata"),
        ("2002:a9fe:a9fe::1", "metadata"),
        ("::a9fe:a9fe", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("fec0::1", "reserved"),
    ],
)
@pytest.mark.parametrize("allowed", [PUBLIC, EVERYTHING])
def test_what_is_refused_whatever_is_allowed(address: str, why: str, allowed: AddressGuard) -> None:
    assert why in (allowed.judge(ip_address(address), 80) or "")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "fc00::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "::7f00:1",
    ],
)
def test_private_addresses_need_the_setting(address: str) -> None:
    assert "not a public address" in (PUBLIC.judge(ip_address(address), 80) or "")
    assert EVERYTHING.judge(ip_address(address), 80) is None


def test_allowed_networks_are_all_that_is_allowed() -> None:
    assert LAB.judge(IPv4Address("127.0.0.1"), 80) is None
    assert LAB.judge(ip_address("::ffff:127.0.0.1"), 80) is None
    for outside in ("93.184.216.34", "10.0.0.1", "::1"):
        assert "notices.allowed_networks" in (LAB.judge(ip_address(outside), 80) or "")


def test_our_own_listeners_are_refused() -> None:
    own = make_guard(LAB.allowed_networks, [("127.0.0.1", 8700), ("localhost", 4222)])
    assert "own listeners" in (own.judge(ip_address("127.0.0.1"), 8700) or "")
    assert "own listeners" in (own.judge(ip_address("::ffff:127.0.0.1"), 8700) or "")
    assert "own listeners" in (own.judge(ip_address("127.0.0.1"), 4222) or "")
    assert own.judge(ip_address("127.0.0.1"), 8701) is None
    assert own.judge(ip_address("127.0.0.2"), 8700) is None
    with pytest.raises(BadInput, match="own listeners"):
        check("http://127.0.0.1:8700/", own)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "[::]"])
def test_a_listener_on_all_addresses_is_ours_on_each(host: str) -> None:
    own = make_guard(EVERYTHING.allowed_networks, [(host, 8700)])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; names the address that we would use
        mine = probe.getsockname()[0]
    for address in ("127.0.0.1", "127.9.9.9", mine):
        assert "own listeners" in (own.judge(ip_address(address), 8700) or ""), address
        assert own.judge(ip_address(address), 8701) is None


def test_of_a_name_only_the_good_addresses_are_used() -> None:
    target = parse("http://hooks.example.com/")
    good, bad = ip_address("93.184.216.34"), ip_address("169.254.169.254")
    assert choose(target, [bad, good], PUBLIC) == (good,)
    with pytest.raises(BadInput, match="metadata"):
        choose(target, [bad], PUBLIC)
    with pytest.raises(BadInput, match="no address"):
        choose(target, [], PUBLIC)


@given(st.ip_addresses(v=4))
def test_no_disguise_changes_the_verdict(address: IPv4Address) -> None:
    number = int(address)
    disguises = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
    ]
    for allowed in (PUBLIC, LAB):
        plain = allowed.judge(address, 80) is None
        assert all((allowed.judge(each, 80) is None) == plain for each in disguises)
    assert all(address in faces(each) for each in disguises)
    assert address in faces(IPv6Address((0x2002 << 112) | (number << 80) | 1))


hosts = st.one_of(
    st.from_regex(r"[0-9a-fx.]{1,20}", fullmatch=True),
    st.from_regex(r"\[[0-9a-f:.]{2,24}\]", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.text(max_size=20),
)


@given(
    scheme=st.sampled_from(["http://", "https://", "HTTP://"]),
    host=hosts,
    rest=st.sampled_from(["", "/", ":80/", "/x?y=1", ":8080", "?q", "/..//@x"]),
)
def test_what_we_accept_the_client_reads_as_we_do(scheme: str, host: str, rest: str) -> None:
    url = scheme + host + rest
    try:
        target = check(url, PUBLIC)
    except BadInput:
        return
    read = URL(url)
    assert read.user is None and read.password is None and not read.fragment
    assert read.port == target.port
    if target.address is None:
        assert read.host == target.host
        with pytest.raises(OSError, match=r".*"):
            socket.inet_aton(target.host)  # no old spelling of an address is left
    else:
        assert ip_address(read.host or "") == target.address
        assert all(is_public(face) for face in faces(target.address))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("192.0.0.8", False),  # public to the Python 3.11.2 of Debian
        ("192.0.0.9", True),
        ("192.0.0.170", False),
        ("192.88.99.1", False),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("172.15.255.255", True),
        ("172.32.0.0", True),
        ("2001:1::1", True),
        ("2001:1::4", False),
        ("2001:20::1", True),
        ("2001:1ff:ffff::", False),
        ("2001:200::", True),
        ("3fff::1", False),
        ("64:ff9b:1::1", False),
        ("2606:2800:220::1", True),
    ],
)
def test_which_addresses_are_public_does_not_hang_on_the_python(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public
