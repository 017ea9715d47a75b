"""A node process that starts with a fault on disk sees that it is undone: without server and without NATS."""

from __future__ import annotations

import signal
import sys

import pytest
import yaml
from broken_host import OURS, BrokenHost, state, until

from homeostat.drills.shipped.keeper import orders
from homeostat.lab.children import end_all, undo_keepers


@pytest.mark.seed("order freeze, kill and OOM-kill of the node process: all undone")
def test_a_starting_node_process_has_what_is_broken_undone(host: BrokenHost) -> None:
    victim = host.victim(f"{OURS}-api")
    plan = host.order("node_freeze", {"command_line": f"{OURS}-api 600"}, 3000.0)
    for verb in ("plan", "inject"):
        host.good(verb, plan)
    # Guard and keeper at once: nobody is left who would undo it.
    assert {each.killed for each in end_all(lambda: undo_keepers(host.root), grace_s=0.0)} == {True}
    assert state(victim) == "T" and orders.status(host.keeper)["keeper"] is None
    password = host.root / "nats.password"
    password.write_text("secret")
    given = yaml.safe_load(host.config.read_text())
    given["drills"] = {"enabled": False}  # what is permitted now changes nothing
    given["nats"] = {"url": "nats://127.0.0.1:9", "user": "n1", "password_file": str(password)}
    host.config.write_text(yaml.safe_dump(given))
    log = (host.root / "node.log").open("wb")
    node = host.start(sys.executable, "-m", "homeostat.node.main", str(host.config), stdout=log, stderr=log)
    log.close()
    life = until(lambda: orders.status(host.keeper)["keeper"], "a keeper")
    node.send_signal(signal.SIGKILL)
    node.wait()
    assert state(victim) == "T" and orders.status(host.keeper)["keeper"]["pid"] == life["pid"]
    assert host.good("undo", plan)["undone"] and state(victim) == "S"
    assert host.good("verify_undone", plan)["undone"]
