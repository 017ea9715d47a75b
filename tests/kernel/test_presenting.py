"""What of a command line or a setting is shown: no secret, and everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.kernel.redaction import HIDDEN, redact

H = HIDDEN


@pytest.mark.seed("order no secret in a shown command line")
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        # short options
        ("tool -P hunter2 run", f"tool -P {H} run"),
        ("tool -p hunter2 run", f"tool -p {H} run"),
        ("mysql -u root -phunter nova", f"mysql -u root -p{H} nova"),
        ("/usr/bin/mariadb-dump -p12345 nova", f"/usr/bin/mariadb-dump -p{H} nova"),
        ("unknown -pS3cret! x", f"unknown -p{H} x"),
        ("ipmitool -I lanplus -U admin -P 1234 power off", f"ipmitool -I lanplus -U admin -P {H} power off"),
        ("sshpass -p 1234 ssh n1", f"sshpass -p {H} ssh n1"),
        ("/usr/bin/sshpass -psecret ssh n1", f"/usr/bin/sshpass -p{H} ssh n1"),
        # headers
        ("curl -H Authorization: Bearer ey.J-0= http://h/", f"curl -H Authorization: Bearer {H} http://h/"),
        ("curl -H authorization: basic dTpw http://h/", f"curl -H authorization: basic {H} http://h/"),
        ("curl -H Authorization: raw http://h/", f"curl -H Authorization: {H} http://h/"),
        ("curl -H X-Auth-Token: gAAA http://h/v3", f"curl -H X-Auth-Token: {H} http://h/v3"),
        ("curl -HX-Auth-Token:gAAA http://h/v3", f"curl -HX-Auth-Token:{H} http://h/v3"),
        ("sh -c curl -H 'X-Subject-Token: g' h", f"sh -c curl -H 'X-Subject-Token: {H} h"),
        ("curl -HAuthorization: Bearer gAAA h", f"curl -HAuthorization: Bearer {H} h"),
        ('curl -d {"password": "x"} h', f'curl -d {{"password": {H} h'),
        ("curl -H Cookie: a=1; sid=2 http://h/", f"curl -H Cookie: {H} http://h/"),
        # logins
        ("probe me:pass@n1 now", f"probe me:{H}@n1 now"),
        ("probe --to=me:pass@n1 now", f"probe --to=me:{H}@n1 now"),
        ("curl -u admin:adminpw http://h/", f"curl -u admin:{H} http://h/"),
        ("curl --user admin:adminpw http://h/", f"curl --user admin:{H} http://h/"),
        ("tool rabbit://me:p@ss@h:5672/", f"tool rabbit://me:{H}@h:5672/"),
        # long options, as ever
        ("tool --db-password hunter2 x", f"tool --db-password {H} x"),
        ("java -Djavax.net.ssl.keyStorePassword=x Main", f"java -Djavax.net.ssl.keyStorePassword={H} Main"),
        ("API_KEY=x tool --token=y", f"API_KEY={H} tool --token={H}"),
        # of the services that drills break
        (
            "/x/beam.smp -sname r@n1 -setcookie QJ -noshell",
            f"/x/beam.smp -sname r@n1 -setcookie {H} -noshell",
        ),
        ("mariadbd --wsrep_sst_auth=sst:pw --user=m", f"mariadbd --wsrep_sst_auth=sst:{H} --user=m"),
        ("mariadbd --wsrep-sst-auth sst:pw", f"mariadbd --wsrep-sst-auth sst:{H}"),
        (
            "mariadbd --wsrep_provider_options=gcache.size=1G;socket.ssl_key_password=pw --user=m",
            f"mariadbd --wsrep_provider_options=gcache.size=1G;socket.ssl_key_password={H} --user=m",
        ),
        ("redis-server --requirepass pw --port 1", f"redis-server --requirepass {H} --port 1"),
        ("redis-server --masterauth pw --port 1", f"redis-server --masterauth {H} --port 1"),
        ("gpg --passphrase pw -d x", f"gpg --passphrase {H} -d x"),
        ("tool --pass pw x", f"tool --pass {H} x"),
        ("rabbit --default_pass=pw x", f"rabbit --default_pass={H} x"),
        ("api --memcache_secret_key pw x", f"api --memcache_secret_key {H} x"),
        ("haproxy --stats-auth admin:pw x", f"haproxy --stats-auth admin:{H} x"),
        ("sh -c 'DB_PASS=pw tool'", f"sh -c 'DB_PASS={H} tool'"),
    ],
)
def test_no_secret_of_a_command_line_is_shown(line: str, shown: str) -> None:
    assert redact("", line) == shown


@pytest.mark.parametrize(
    "line",
    [
        "httpd -p 8080",
        "httpd -P 8080 -p8081",
        "ssh -p 2222 root@n1",
        "mysql -P 3306 -u nova",
        "mysql -P3306 -u nova",
        "docker run -p 127.0.0.1:8080:80/tcp -u 1000:1000 image",
        "qemu -pidfile /run/q.pid",
        "beam -progname erl -proto_dist inet_tcp",
        "tool -p -v",
        "tool --token-file /etc/token --key-file k",
        "scp root@n1:/a /b",
        "http://127.0.0.1:8080/v3 tcp://10.0.0.1:22",
        "/usr/bin/python3 -m homeostat.lab.service --name web-n1 --port 8801 --ready-file /x/ready",
        "/usr/bin/nova-api --config-file=/etc/nova/nova.conf",
        "12:30 a@b",
        "tool --bypass-cache x --pass-file /etc/p --secret-key-file k --cookie-name sid",
        "mysqld --default-auth=mysql_native --wsrep_provider_options=gcache.size=1G;gmcast.segment=0",
        "keystone --auth-type token --no-auth /etc/x",
        "bind 0.0.0.0:8774",
    ],
)
def test_what_is_no_secret_is_shown(line: str) -> None:
    assert redact("", line) == line


@given(st.text())
def test_hiding_twice_changes_nothing_more(line: str) -> None:
    once = redact("", line)
    assert redact("", once) == once
