"""Shipped profiles find an API of OpenStack however it is run, and nothing else."""

from __future__ import annotations

import re

import pytest

from homeostat.drills.node.settings import shipped_profiles

UWSGI = "/usr/bin/uwsgi_python3 --ini /etc/{project}/{name}-uwsgi.ini"
VENV = "/opt/openstack/bin/python3.11 /opt/openstack/bin/uwsgi --ini /etc/{project}/{name}-uwsgi.ini"
APIS = {
    "keystone": ("keystone", "keystone"),
    "placement-api": ("placement", "placement-api"),
    "nova-api": ("nova", "nova-api"),
    "neutron-server": ("neutron", "neutron-api"),
    "glance-api": ("glance", "glance-api"),
    "cinder-api": ("cinder", "cinder-api"),
    "heat-api": ("heat", "heat-api"),
}


def found_by(line: str) -> list[str]:
    """The profiles that a whole command line belongs to."""
    return [name for name, words in shipped_profiles().items() if re.fullmatch(words["command_line"], line)]


@pytest.mark.seed("000 I23 processes are found by the whole command line: uwsgi, apache, eventlet")
@pytest.mark.parametrize("profile", APIS)
def test_an_api_is_found_under_uwsgi_in_apache_and_by_itself(profile: str) -> None:
    project, name = APIS[profile]
    for line in (
        UWSGI.format(project=project, name=name),
        VENV.format(project=project, name=name),
        f"uwsgi --procname-prefix {name} --ini /etc/{project}/{name}-uwsgi.ini --http-socket 10.0.0.1:80",
        f"{name}uWSGI master",
        f"{name} uWSGI worker 2",
        f"{name}-uWSGI worker 1",
        f"(wsgi:{name}) -DFOREGROUND",
        f"(wsgi:{name}",
    ):
        assert found_by(line) == [profile], line


@pytest.mark.parametrize(
    ("line", "profile"),
    [
        ("/usr/bin/python3 /usr/bin/nova-api --config-file=/etc/nova/nova.conf", "nova-api"),
        ("/usr/bin/python3.11 /usr/local/bin/nova-api-wsgi --port 8774", "nova-api"),
        (
            "/usr/bin/python3 /usr/bin/neutron-server --config-dir /etc/neutron",
            "neutron-server",
        ),
        ("neutron-server: api worker", "neutron-server"),
        ("neutron-server: api worker (/usr/bin/python3 /usr/bin/neutron-server --debug)", "neutron-server"),
        ("neutron-server: rpc worker (/usr/bin/python3 /usr/bin/neutron-server)", "neutron-server"),
        ("/usr/bin/uwsgi --ini /etc/neutron/neutron-server-uwsgi.ini", "neutron-server"),
        ("/usr/bin/python3 /usr/bin/glance-api", "glance-api"),
        ("/usr/bin/python3 /usr/bin/cinder-api --config-file=/etc/cinder/cinder.conf", "cinder-api"),
        ("/usr/bin/python3 /usr/bin/heat-api", "heat-api"),
        ("(wsgi:keystone-pu -k start", "keystone"),
        ("/usr/bin/python3 /usr/bin/neutron-rpc-server --config-dir /etc/neutron", "neutron-rpc-server"),
        (
            "neutron-server: rpc worker (/usr/bin/python3 /usr/bin/neutron-rpc-server)",
            "neutron-rpc-server",
        ),
        ("nova-conductor: ServiceWrapper worker(0)", "nova-conductor"),
        ("/usr/sbin/haproxy -W -db -f /etc/haproxy/haproxy.cfg", "haproxy"),
        ("haproxy -W -db -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid", "haproxy"),
        ("/usr/sbin/keepalived -n -f /etc/keepalived/keepalived.conf", "keepalived"),
        ("/usr/sbin/keepalived", "keepalived"),
        ("/usr/sbin/mariadbd --user=mysql", "mariadb"),
        # with options of the interpreter, as RDO's units and their containers have them
        ("/usr/bin/python3 -s /usr/bin/glance-api", "glance-api"),
        ("/usr/bin/python3 -E -s /usr/bin/nova-api --config-file /etc/nova/nova.conf", "nova-api"),
        ("/usr/bin/python3.9 -sP /usr/bin/cinder-scheduler --logfile /var/log/x", "cinder-scheduler"),
        ("/usr/bin/python3 -s /usr/bin/heat-engine", "heat-engine"),
        (
            "neutron-server: api worker (/usr/bin/python3 -s /usr/bin/neutron-server --debug)",
            "neutron-server",
        ),
        (
            "neutron-server: rpc worker (/usr/bin/python3 -s /usr/bin/neutron-rpc-server)",
            "neutron-rpc-server",
        ),
        ("/usr/bin/python3 -s /usr/sbin/uwsgi --ini /etc/nova/nova-api-uwsgi.ini", "nova-api"),
        ("/usr/sbin/uwsgi --ini /etc/keystone/keystone-uwsgi-public.ini", "keystone"),
        ("/usr/sbin/uwsgi --ini /etc/keystone/keystone-uwsgi-admin.ini --die-on-term", "keystone"),
    ],
)
def test_a_process_belongs_to_one_profile(line: str, profile: str) -> None:
    assert found_by(line) == [profile]


@pytest.mark.parametrize(
    "line",
    [
        "neutron-server: rpc worker",
        "ssh ctl1 pkill -f nova-api",
        "bash -c pgrep -f uwsgi --ini /etc/nova/nova-api-uwsgi.ini",
        "tail -f /var/log/nova/nova-api.log",
        "/usr/bin/uwsgi --ini /etc/nova/nova-api-metadata-uwsgi.ini",
        "nova-api-metauWSGI worker 1",
        "(wsgi:nova-api-meta) -DFOREGROUND",
        "/usr/bin/uwsgi --ini /etc/heat/heat-api-cfn-uwsgi.ini",
        "heat-api-cfnuWSGI master",
        "/usr/bin/python3 /usr/bin/nova-api-metadata",
        "uwsgi --ini /etc/nova/other.ini",
        # what agents of neutron run for tenants, beside the cloud's own
        "haproxy -f /var/lib/neutron/ns-metadata-proxy/4f0c.conf",
        "/usr/sbin/haproxy -f /var/lib/neutron/ovn-metadata-proxy/4f0c.conf",
        "keepalived -P -f /var/lib/neutron/ha_confs/9a/keepalived.conf -p /var/lib/neutron/ha_confs/9a.pid",
        # an interpreter that runs something else
        "/usr/bin/python3 -s /usr/bin/vi /usr/bin/nova-api",
        "/usr/bin/python3 -m pdb /usr/bin/nova-api",
    ],
)
@pytest.mark.seed("000 neutron-rpc-server is not mistaken for neutron-server")
def test_what_only_looks_like_a_service_is_none(line: str) -> None:
    assert found_by(line) == []


def test_whoever_serves_others_too_is_shared() -> None:
    assert found_by("/usr/sbin/apache2 -k start") == ["keystone-in-apache", "apache"]
    assert all(shipped_profiles()[name]["shared"] for name in ("keystone-in-apache", "apache"))
