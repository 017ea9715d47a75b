"""A real script in place of OpenStack's client: does what a file says, and writes down what it was asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_SCRIPT = """\
#!{python}
import json, os, subprocess, sys, time
folder = {folder!r}
group = os.getpgrp() == os.getpid()
cloud = {{name: value for name, value in os.environ.items() if name.startswith("OS_")}}
with open(folder + "/calls.jsonl", "a") as calls:
    said = {{"argv": sys.argv[1:], "pid": os.getpid(), "leads": group, "env": cloud}}
    calls.write(json.dumps(said) + "\\n")
does = open(folder + "/does").read()
if does == "hang":
    child = subprocess.Popen(["sleep", "600"])
    with open(folder + "/child.new", "w") as file:
        file.write(str(child.pid))
    os.rename(folder + "/child.new", folder + "/child")
    time.sleep(600)
if does == "fail":
    sys.exit("Unable to establish connection to http://10.0.0.1:8774")
print("[]")
"""


class CalledClient:
    """The script in `folder`, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "openstack"
        self.path.write_text(_SCRIPT.format(python=sys.executable, folder=str(folder)))
        self.path.chmod(0o755)
        self.does("answer")

    def does(self, what: str) -> None:
        """From the next call on: answer, fail or hang."""
        (self.folder / "does.new").write_text(what)
        (self.folder / "does.new").replace(self.folder / "does")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call so far."""
        path = self.folder / "calls.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def child(self) -> int | None:
        """The process that a hung call has started."""
        path = self.folder / "child"
        return int(path.read_text()) if path.exists() else None
