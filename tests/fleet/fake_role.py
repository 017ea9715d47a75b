"""A role for tests: speaks the JSON lines, writes what it sees into a diary, obeys a script.

Usage: fake_role.py DIARY WORD...   where a word is one of
  report:RESOURCE:STATE   report and wait until it is recorded
  intend:RESOURCE:ACTION  report down with an intended act, wait
  finish:RESOURCE:ACTION  report up with the act finished, wait
  hear                    wait for an assignment
  garbage | long | half | exit:CODE | deaf | orphan | wait | linger:SECONDS
On SIGTERM it reports every resource it knows as stopped, waits for the answers and ends.
"""

import json
import os
import signal
import subprocess
import sys
import time

DIARY, WORDS = sys.argv[1], sys.argv[2:]
number = 0
known: set[str] = set()


def write(what: str) -> None:
    with open(DIARY, "a") as diary:
        diary.write(what + "\n")


def report(resource: str, state: str, **more: object) -> None:
    global number
    number += 1
    known.add(resource)
    line = {
        "number": number,
        "resource": resource,
        "kind": "service",
        "owner": "platform",
        "agent": "ocf:homeostat:process",
        "state": state,
        "reason": "as the test says",
        "at_ns": time.time_ns(),
        "mono_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        **more,
    }
    print(json.dumps(line), flush=True)
    answer = json.loads(sys.stdin.readline())
    while "mine" in answer:
        write("assigned " + json.dumps(answer, sort_keys=True))
        answer = json.loads(sys.stdin.readline())
    assert answer == {"number": number}, answer
    write(f"recorded {resource} {state}")


def stop(*_: object) -> None:
    raise SystemExit


signal.signal(signal.SIGTERM, stop)
recalled = json.loads(sys.stdin.readline())
while recalled.pop("more", False):
    following = json.loads(sys.stdin.readline())
    recalled["levels"] += following["levels"]
    recalled["open_intents"] |= following["open_intents"]
    recalled["more"] = following["more"]
write(f"pid {os.getpid()}")
write("recalled " + json.dumps(recalled, sort_keys=True))
linger_s = 0.0
try:
    for word in WORDS:
        verb, _, rest = word.partition(":")
        resource, _, detail = rest.partition(":")
        if verb == "report":
            report(resource, detail)
        elif verb == "intend":
            act = {"action": detail, "verb": "restart", "deadline_s": 20, "reason": "it is down"}
            report(resource, "down", intended=act)
        elif verb == "finish":
            end = {"action": detail, "outcome": "ok", "took_ms": 12.5, "reason": "started"}
            report(resource, "up", finished=end)
        elif verb == "garbage":
            print('{"number": "what?"', flush=True)
        elif verb == "long":
            print("x" * 100_000, flush=True)
        elif verb == "half":
            print('{"number": 1, ', end="", flush=True)
            os._exit(0)
        elif verb == "exit":
            os._exit(int(rest))
        elif verb == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif verb == "orphan":
            child = subprocess.Popen(["sleep", "60"], stdin=0, stdout=1, start_new_session=True)
            write(f"orphan {child.pid}")
            os._exit(3)
        elif verb == "hear":
            write("hears")
            write("assigned " + json.dumps(json.loads(sys.stdin.readline()), sort_keys=True))
        elif verb == "linger":
            linger_s = float(rest)
    write("waits")
    while True:
        time.sleep(60)
except SystemExit:
    for resource in sorted(known):
        report(resource, "stopped")
    time.sleep(linger_s)
    write("stopped in order")
