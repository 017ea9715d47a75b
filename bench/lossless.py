"""Never lost, never twice: Homeostat and Debian's prometheus-alertmanager, killed at the same moments.

    make bench B=lossless       1 000 faults, 50 kill -9 of each, webhooks down for 10 s; QUICK=1: 150, 8, 5 s

One seeded schedule (SEED=1) says when which of 1 000 resources breaks and is back, when `kill -9` falls and when
the consumers are dead. Three stand side by side and get all of it: Homeostat's server behind the product's own
node side (`lossless_node.py`), Alertmanager whose source says everything once, and Alertmanager whose source
repeats everything as Prometheus does (`lossless_alerts.py`). Whoever is killed is started again at once. The
judge reads two kinds of logs and nothing else: what each source broke, and what the consumers heard.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from told import PEER, answers, flush_ms, wait_for

from homeostat.kernel.client import Client
from homeostat.kernel.processes import die_with_parent
from homeostat.lab.preparation import find_nats_server, is_free, nats_config

QUICK = bool(os.environ.get("QUICK"))
SEED = int(os.environ.get("SEED", "1"))
FAULTS, KILLS, BREAKING_S, DOWN_S = (150, 8, 25.0, 5.0) if QUICK else (1000, 50, 150.0, 10.0)
LASTS_S = (2.0, 6.0) if QUICK else (10.0, 30.0)
SETTLE_S = 90.0
QUIET_S = 8.0 if QUICK else 20.0
RESEND_S = 5.0
HOSTS = ("h1", "h2", "h3", "h4")
TOKEN = "hs_" + "b" * 43
HERE = Path(__file__).parent
RESULT = HERE / "results" / "lossless.json"
TELLERS = ("homeostat", "once", "resent")


@dataclass
class Kept:
    """A process that is started again whenever it ends; what all of its lives have cost."""

    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    cpu_s: float = 0.0
    peak_mib: float = 0.0

    def start(self) -> None:
        """Fork. From the main thread only: PDEATHSIG follows the thread that forks."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent()
            )
        self.starts += 1

    def ended(self) -> bool:
        """Whether it has ended; its costs are added then."""
        if self.process is None:
            return True
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.process = None
        self.cpu_s += usage.ru_utime + usage.ru_stime
        self.peak_mib = max(self.peak_mib, usage.ru_maxrss / 1024)
        return True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and wait until it is gone."""
        if not self.ended() and self.process is not None:
            self.process.send_signal(number)
            wait_for(self.ended, 20, f"the end of {self.argv[0]}")


@dataclass
class Scene:
    """Every process of one run and where they meet."""

    folder: Path
    kept: dict[str, Kept] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """A port below the ephemeral range, so that nobody takes it between two lives of its owner."""
        while name not in self.ports:
            chosen = random.randrange(20_000, 32_000)
            if chosen not in self.ports.values() and is_free(chosen):
                self.ports[name] = chosen
        return self.ports[name]

    def keep(self, name: str, *argv: object) -> None:
        """Start one."""
        self.kept[name] = Kept([str(word) for word in argv], self.folder / f"{name}.log")
        self.kept[name].start()

    def tend(self) -> None:
        """Start again what has ended; called often."""
        for name, each in self.kept.items():
            if each.ended() and not (name == "consumer" and (self.folder / "consumer.off").exists()):
                each.start()

    def lines(self, name: str) -> list[Any]:
        """The whole lines of a log in JSON."""
        path = self.folder / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def schedule() -> dict[str, Any]:
    """Who breaks and is back when, when kills fall, when the consumers are dead. Seconds from the start."""
    choose = random.Random(SEED)
    resources = {f"r{number:04}": HOSTS[number % len(HOSTS)] for number in range(FAULTS)}
    changes = []
    for resource in resources:
        broken_s = choose.uniform(0, BREAKING_S)
        changes += [
            (broken_s, resource, "raised"),
            (broken_s + choose.uniform(*LASTS_S), resource, "cleared"),
        ]
    end_s = BREAKING_S + LASTS_S[1]
    middle_s = end_s / 2
    return {
        "resources": resources,
        "changes": sorted(changes),
        "kills": sorted(choose.uniform(0, end_s) for _ in range(KILLS)),
        "consumers_dead": (middle_s - DOWN_S / 2, middle_s + DOWN_S / 2),
    }


def start_ours(scene: Scene) -> Client:
    """NATS, the server, a subscription."""
    folder, nats, api = scene.folder, scene.port("nats"), scene.port("api")
    passwords = {name: f"{name}-secret" for name in ("server", *HOSTS)}
    (folder / "nats.conf").write_text(nats_config(nats, passwords, HOSTS))  # type: ignore[arg-type]
    (folder / "nats.password").write_text(passwords["server"])
    (folder / "admin.token").write_text(TOKEN)
    settings = {
        "state_dir": str(folder / "server"),
        "database_url": f"sqlite:///{folder}/homeostat.db",
        "nats": {
            "url": f"nats://127.0.0.1:{nats}",
            "user": "server",
            "password_file": str(folder / "nats.password"),
        },
        "api": {"port": api, "admin_token_file": str(folder / "admin.token")},
        "notices": {"allowed_networks": ["127.0.0.1/32"]},
    }
    (folder / "server.yaml").write_text(yaml.safe_dump(settings))
    scene.keep("nats", find_nats_server().path, "-c", folder / "nats.conf")
    scene.keep("homeostat", sys.executable, "-m", "homeostat.server.main", folder / "server.yaml")
    wait_for(lambda: answers(f"http://127.0.0.1:{api}/healthz"), 30, "the server")
    client = Client(f"http://127.0.0.1:{api}", TOKEN)
    body = {"url": f"http://127.0.0.1:{scene.port('consumer')}/homeostat", "secret": "s" * 32}
    client.call("PUT", "/subscriptions/on-call", {**body, "project": "infrastructure"})
    return client


def start_peer(scene: Scene, name: str) -> str:
    """One Alertmanager and its source; the URL."""
    folder, port = scene.folder / name, scene.port(name)
    folder.mkdir()
    (folder / "alertmanager.yml").write_text(
        "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
        "receivers: [{name: hook, webhook_configs: "
        f"[{{url: 'http://127.0.0.1:{scene.port('consumer')}/{name}'}}]}}]\n"
    )
    scene.keep(
        name, PEER, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{url}/-/ready"), 30, PEER)
    return url


def start(scene: Scene, plan: dict[str, Any]) -> None:
    """Everything runs, every resource is known to be up; nothing breaks yet."""
    folder = scene.folder
    (folder / "schedule.json").write_text(json.dumps(plan))
    heard = folder / "heard.jsonl"
    heard.touch()
    scene.keep("consumer", sys.executable, HERE / "lossless_consumer.py", scene.port("consumer"), heard)
    start_ours(scene)
    node = (HERE / "lossless_node.py", folder / "schedule.json", folder)
    scene.keep(
        "source-homeostat", sys.executable, *node, f"nats://127.0.0.1:{scene.port('nats')}",
        folder / "broke-homeostat.jsonl",
    )  # fmt: skip
    for name, resend_s in (("once", 0.0), ("resent", RESEND_S)):
        source = (HERE / "lossless_alerts.py", folder / "schedule.json", start_peer(scene, name))
        scene.keep(f"source-{name}", sys.executable, *source, folder / f"broke-{name}.jsonl", resend_s)
    wait_for(lambda: "ready" in scene.lines("broke-homeostat.jsonl"), 60, "every resource at the server")


def torment(scene: Scene, plan: dict[str, Any]) -> None:
    """Kill by the schedule, keep everything going, until all is told or the time is over."""
    start_s = time.monotonic() + 0.5
    (scene.folder / "start.new").write_text(str(start_s))
    (scene.folder / "start.new").rename(scene.folder / "start")
    kills, (dead_from_s, dead_until_s) = list(plan["kills"]), plan["consumers_dead"]
    off = scene.folder / "consumer.off"
    end_s = BREAKING_S + LASTS_S[1]
    was_s = counted = quiet_since_s = 0.0
    while True:
        now_s = time.monotonic() - start_s
        while kills and kills[0] <= now_s:
            kills.pop(0)
            for name in TELLERS:
                scene.kept[name].kill()
        if dead_from_s <= now_s < dead_until_s and not off.exists():
            off.touch()
            scene.kept["consumer"].kill()
        elif now_s >= dead_until_s:
            off.unlink(missing_ok=True)
        scene.tend()
        if now_s - was_s >= 1:
            was_s = now_s
            heard = scene.lines("heard.jsonl")
            if len(heard) != counted:
                counted, quiet_since_s = len(heard), now_s
            done = [f"{name} {each['told']}/{2 * FAULTS}" for name, each in judge(scene).items()]
            print(
                f"\r{now_s:4.0f} s, {len(kills)} kills left; told: {', '.join(done)}   ",
                end="",
                file=sys.stderr,
            )
            if now_s > end_s and (now_s - quiet_since_s > QUIET_S or now_s > end_s + SETTLE_S):
                break
        time.sleep(0.01)
    print(file=sys.stderr)


def judge(scene: Scene) -> dict[str, dict[str, int]]:
    """What was broken against what was heard, for each who tells. A key is Homeostat's own; for Alertmanager,
    which gives none, fingerprint, status and start together."""
    heard: dict[str, Counter[tuple[str, str, str]]] = {name: Counter() for name in TELLERS}
    others = 0
    for line in scene.lines("heard.jsonl"):
        name, body = line["path"].strip("/"), line["body"]
        if name == "homeostat":
            fault = body["fault"]
            others += fault["kind"] != "resource_down"
            if fault["kind"] == "resource_down":
                heard[name][fault["about"].removeprefix("resource/"), body["transition"], line["key"]] += 1
            continue
        for alert in body["alerts"]:
            transition = {"firing": "raised", "resolved": "cleared"}[alert["status"]]
            key = f"{alert['fingerprint']} {alert['startsAt']} {transition}"
            heard[name][alert["labels"]["instance"], transition, key] += 1
    result = {}
    for name, keys in heard.items():
        broke = {
            (each["resource"], each["transition"])
            for each in scene.lines(f"broke-{name}.jsonl") if isinstance(each, dict)
        }  # fmt: skip
        told = {(resource, transition) for resource, transition, _ in keys}
        result[name] = {
            "broken": sum(transition == "raised" for _, transition in broke),
            "told": len(told & broke),
            "lost_raised": sum(transition == "raised" for _, transition in broke - told),
            "lost_cleared": sum(transition == "cleared" for _, transition in broke - told),
            "doubled_keys": len(keys) - len(told),
            "same_key_again": keys.total() - len(keys),
            "never_broken": len(told - broke),
            "of_nodes": others if name == "homeostat" else 0,
        }
    return result


def main() -> None:
    """Run, print, write the result."""
    if shutil.which(PEER) is None:
        raise SystemExit(f"bench: the peer is not here; apt-get install {PEER}")
    version = subprocess.run([PEER, "--version"], capture_output=True, text=True, check=True)
    plan = schedule()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name))
        flush = flush_ms(scene.folder)
        load = os.getloadavg()[0]
        try:
            start(scene, plan)
            torment(scene, plan)
        finally:
            for each in scene.kept.values():
                each.kill()
        verdicts = judge(scene)
        if os.environ.get("KEEP"):
            shutil.copytree(scene.folder, os.environ["KEEP"], ignore=shutil.ignore_patterns("ballast"))
    names = {
        "homeostat": "homeostat", "once": f"{PEER}, source says it once",
        "resent": f"{PEER}, source repeats every {RESEND_S:g} s",
    }  # fmt: skip
    rows = []
    for teller in TELLERS:
        kept = [scene.kept[teller], *([scene.kept["nats"]] if teller == "homeostat" else [])]
        rows.append(
            {
                "who": names[teller],
                **verdicts[teller],
                "kills": scene.kept[teller].starts - 1,
                "cpu_s": round(sum(each.cpu_s for each in kept), 1),
                "source_cpu_s": round(scene.kept[f"source-{teller}"].cpu_s, 1),
                "peak_mib": round(max(each.peak_mib for each in kept)),
            }
        )
    write(rows, version.stdout + version.stderr, flush, load, time.monotonic() - began_s)


def write(rows: list[dict[str, Any]], peer: str, flush: list[float], load: float, took_s: float) -> None:
    """The table and the result file."""
    ours = rows[0]
    lost = ours["lost_raised"] + ours["lost_cleared"]
    targets = (
        ("raised and cleared notices that never came", lost),
        ("faults told under two keys", ours["doubled_keys"]),
        ("faults told that nobody broke", ours["never_broken"]),
    )
    result = {
        "name": "lossless",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "work": {
            "faults": FAULTS, "kills": KILLS, "consumers_dead_s": DOWN_S, "breaking_s": BREAKING_S,
            "fault_lasts_s": LASTS_S, "seed": SEED, "resend_s": RESEND_S, "took_s": round(took_s),
            "peer": peer.splitlines()[0],
        },
        "machine": {
            "cores": os.cpu_count(), "load": load,
            "flush_p50_ms": round(sorted(flush)[50], 3), "flush_p99_ms": round(sorted(flush)[98], 3),
        },
        "rows": rows,
        "ratios": {"ours_to_peer_cpu": round(ours["cpu_s"] / max(rows[2]["cpu_s"], 0.1), 1)},
        "promises": [
            {"what": what, "target": 0, "measured": measured, "met": measured == 0} for what, measured in targets
        ],
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    columns = ("broken", "lost_raised", "lost_cleared", "doubled_keys", "same_key_again", "kills", "cpu_s")
    print(f"{'':48}" + "".join(f"{column:>15}" for column in columns))
    for row in rows:
        print(f"{row['who']:48}" + "".join(f"{row[column]:>15}" for column in columns))
    print(f"{took_s:.0f} s; written to {RESULT}")
    if not all(promise["met"] for promise in result["promises"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
