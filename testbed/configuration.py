"""The settings of keystone, placement, nova, neutron, glance, cinder and heat, as functions of the plan.

Pure. Both controllers have the same files; only the address in an API's uwsgi file differs. What is not
set keeps OpenStack's own default.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.plan import REGION, Plan
from testbed.services import APIS, VENV, Api

SHARED = "/srv/shared"
"""Inside every controller: the folder of images and of keystone's keys."""

Section = Mapping[str, object]
Ini = dict[str, Section]


def render_ini(ini: Mapping[str, Section]) -> str:
    """Sections in the order given; booleans as OpenStack writes them."""

    def word(value: object) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {word(value)}\n" for key, value in section.items())
        for name, section in ini.items()
    )


def configuration_files(plan: Plan) -> dict[str, str]:
    """Every file of /etc that OpenStack reads, by path."""
    inis = {
        "/etc/keystone/keystone.conf": _keystone(plan),
        "/etc/placement/placement.conf": _placement(plan),
        "/etc/nova/nova.conf": _nova(plan),
        "/etc/neutron/neutron.conf": _neutron(plan),
        "/etc/neutron/plugins/ml2/ml2_conf.ini": _ML2,
        "/etc/glance/glance-api.conf": _glance(plan),
        "/etc/cinder/cinder.conf": _cinder(plan),
        "/etc/heat/heat.conf": _heat(plan),
    }
    return {path: render_ini(ini) for path, ini in inis.items()}


def uwsgi_ini(address: str, api: Api) -> str:
    """How one API is served on one controller.

    Each request has a connection of its own: a kept one would hide from the balancer that a worker died.
    """
    settings: Section = {
        "http-socket": f"{address}:{api.port}",
        "module": f"{api.module}:application",
        "master": True,
        "die-on-term": True,
        "processes": api.processes,
        "threads": 4,
        "enable-threads": True,
        "lazy-apps": True,
        "need-app": True,
        "buffer-size": 65535,
        "http-chunked-input": True,
        "thunder-lock": True,
        "so-keepalive": True,
        "add-header": "Connection: close",
        # Every check of a balancer would be a line.
        "disable-logging": True,
        "log-5xx": True,
    }
    return render_ini({"uwsgi": settings})


def database_url(plan: Plan, name: str) -> str:
    """For SQLAlchemy."""
    return f"mysql+pymysql://openstack:{plan.secrets.password}@{plan.database_address}/{name}?charset=utf8mb4"


def _database(plan: Plan, name: str) -> Section:
    return {
        "connection": database_url(plan, name),
        "connection_recycle_time": 300,
        "max_pool_size": 5,
        "max_overflow": 10,
        "max_retries": -1,
    }


def _messages(plan: Plan) -> Section:
    return {"transport_url": f"rabbit://openstack:{plan.secrets.password}@{plan.infra_address}:5672/"}


def _memcached(plan: Plan) -> str:
    return f"{plan.infra_address}:11211"


def _cache(plan: Plan) -> Section:
    return {"enabled": True, "backend": "dogpile.cache.pymemcache", "memcache_servers": _memcached(plan)}


def _login(plan: Plan, user: str) -> dict[str, object]:
    return {
        "auth_type": "password",
        "auth_url": plan.url(5000, "/v3"),
        "username": user,
        "password": plan.secrets.password,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
        "valid_interfaces": "public",
    }


def _token_check(plan: Plan, user: str) -> Section:
    return {
        **_login(plan, user),
        "www_authenticate_uri": plan.url(5000, "/v3"),
        "memcached_servers": _memcached(plan),
        "service_token_roles_required": False,
    }


_RABBIT: Section = {"heartbeat_in_pthread": False, "rabbit_retry_interval": 1}
_PROXIED: Section = {"enable_proxy_headers_parsing": True}


def _keystone(plan: Plan) -> Ini:
    keys = {"key_repository": f"{SHARED}/keystone/fernet-keys"}
    return {
        "database": _database(plan, "keystone"),
        "token": {"provider": "fernet", "expiration": 86_400},
        "fernet_tokens": keys,
        # Without this one the workers exit without a word.
        "fernet_receipts": keys,
        "credential": {"key_repository": f"{SHARED}/keystone/credential-keys"},
        "cache": _cache(plan),
        "oslo_middleware": _PROXIED,
    }


def _placement(plan: Plan) -> Ini:
    return {
        "placement_database": _database(plan, "placement"),
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _token_check(plan, "placement"),
    }


def _nova(plan: Plan) -> Ini:
    return {
        "DEFAULT": {
            **_messages(plan),
            "state_path": "/var/lib/nova",
            "compute_driver": "steady_driver.SteadyDriver",
            "vif_plugging_is_fatal": False,
            "vif_plugging_timeout": 0,
            "service_down_time": 60,
            "report_interval": 10,
            "rpc_response_timeout": 20,
        },
        "api": {"auth_strategy": "keystone"},
        "api_database": _database(plan, "nova_api"),
        "database": _database(plan, "nova"),
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 30},
        "notifications": {
            "notification_format": "both",
            "notify_on_state_change": "vm_and_task_state",
            "versioned_notifications_topics": "versioned_notifications",
        },
        "oslo_messaging_notifications": {"driver": "messagingv2", "topics": "notifications"},
        "oslo_concurrency": {"lock_path": "/var/lib/nova/tmp"},
        "glance": {"api_servers": plan.url(9292)},
        "cache": _cache(plan),
        "vnc": {"enabled": False},
        "cinder": {"os_region_name": REGION},
        "oslo_middleware": _PROXIED,
        "oslo_messaging_rabbit": _RABBIT,
        "keystone_authtoken": _token_check(plan, "nova"),
        "placement": _login(plan, "placement"),
        "neutron": {**_login(plan, "neutron"), "service_metadata_proxy": False},
        "service_user": {**_login(plan, "nova"), "send_service_user_token": False},
    }


def _neutron(plan: Plan) -> Ini:
    return {
        "DEFAULT": {
            **_messages(plan),
            "core_plugin": "ml2",
            "service_plugins": "router",
            "auth_strategy": "keystone",
            "notify_nova_on_port_status_changes": True,
            "notify_nova_on_port_data_changes": True,
            "rpc_workers": 1,
            "rpc_state_report_workers": 0,
            "dhcp_agent_notification": False,
            # The stand-in for an L2 agent reports once in 30 s, and ports are bound only where one lives.
            "agent_down_time": 86_400,
            "api_paste_config": f"{VENV}/etc/neutron/api-paste.ini",
            "state_path": "/var/lib/neutron",
        },
        "database": _database(plan, "neutron"),
        "oslo_concurrency": {"lock_path": "/var/lib/neutron/tmp"},
        "oslo_messaging_notifications": {"driver": "messagingv2", "topics": "notifications"},
        "oslo_messaging_rabbit": _RABBIT,
        "keystone_authtoken": _token_check(plan, "neutron"),
        "nova": _login(plan, "nova"),
        "placement": _login(plan, "placement"),
    }


_ML2: Ini = {
    "ml2": {
        "type_drivers": "local,flat,vlan,vxlan",
        "tenant_network_types": "vxlan",
        "mechanism_drivers": "openvswitch",
        "extension_drivers": "port_security",
    },
    "ml2_type_vxlan": {"vni_ranges": "1:1000"},
    "ml2_type_flat": {"flat_networks": "physnet1"},
    "securitygroup": {"enable_security_group": True},
}


def _glance(plan: Plan) -> Ini:
    return {
        "DEFAULT": {
            **_messages(plan),
            "enabled_backends": "file:file",
            "use_keystone_limits": False,
            "worker_self_reference_url": plan.url(9292),
        },
        "database": _database(plan, "glance"),
        "glance_store": {"default_backend": "file"},
        "file": {"filesystem_store_datadir": f"{SHARED}/images/"},
        "os_glance_staging_store": {"filesystem_store_datadir": "/var/lib/glance/staging/"},
        "os_glance_tasks_store": {"filesystem_store_datadir": "/var/lib/glance/tasks/"},
        "paste_deploy": {"flavor": "keystone", "config_file": f"{VENV}/etc/glance/glance-api-paste.ini"},
        "oslo_messaging_notifications": {"driver": "noop"},
        "keystone_authtoken": _token_check(plan, "glance"),
    }


def _cinder(plan: Plan) -> Ini:
    return {
        "DEFAULT": {
            **_messages(plan),
            "auth_strategy": "keystone",
            "enabled_backends": "fake",
            "state_path": "/var/lib/cinder",
            "api_paste_config": f"{VENV}/etc/cinder/api-paste.ini",
            "resource_query_filters_file": f"{VENV}/etc/cinder/resource_filters.json",
            "glance_api_servers": plan.url(9292),
        },
        "fake": {
            "volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver",
            "volume_backend_name": "fake",
        },
        "database": _database(plan, "cinder"),
        "oslo_concurrency": {"lock_path": "/var/lib/cinder/tmp"},
        "oslo_messaging_rabbit": _RABBIT,
        "keystone_authtoken": _token_check(plan, "cinder"),
        "nova": _login(plan, "nova"),
    }


def _heat(plan: Plan) -> Ini:
    return {
        "DEFAULT": {
            **_messages(plan),
            "num_engine_workers": 1,
            "stack_user_domain_name": "heat",
            "stack_domain_admin": "heat_domain_admin",
            "stack_domain_admin_password": plan.secrets.password,
            "heat_metadata_server_url": plan.url(8000),
            "environment_dir": f"{VENV}/etc/heat/environment.d",
            "template_dir": f"{VENV}/etc/heat/templates",
            "auth_encryption_key": plan.secrets.key,
        },
        "paste_deploy": {"api_paste_config": f"{VENV}/etc/heat/api-paste.ini"},
        "database": _database(plan, "heat"),
        "trustee": {
            "auth_type": "password",
            "auth_url": plan.url(5000, "/v3"),
            "username": "heat",
            "password": plan.secrets.password,
            "user_domain_name": "Default",
        },
        "clients_keystone": {"auth_uri": plan.url(5000, "/v3")},
        "oslo_messaging_rabbit": _RABBIT,
        "keystone_authtoken": _token_check(plan, "heat"),
    }


def uwsgi_files(address: str) -> dict[str, str]:
    """One for each API of the controller with that address."""
    return {api.ini: uwsgi_ini(address, api) for api in APIS}
