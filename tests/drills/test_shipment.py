"""What is sent to a host: standard library only, for python3.9, complete, and the same each time."""

from __future__ import annotations

import ast
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engines import leave_out
from homeostat.drills.shipped.boot import digest_of
from homeostat.drills.transports.ssh_link import BOOT, MODULES, PACKAGE, shipment

OLD = [f"python3.{minor}" for minor in range(9, 14)]
TOO_NEW = {("dataclass", "slots"), ("dataclass", "kw_only"), ("zip", "strict")}
"""Functions and their words that python3.9 does not know."""


def working(python: str) -> str:
    """The program, or the test is left out; a stand-in that only says what to install is none."""
    program = shutil.which(python)
    if program is None or subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode:
        leave_out("other-pythons", why=python)
    return program


def whole(name: str, node: ast.ImportFrom) -> str:
    """The module that is imported from by the module `name`, also when it is named relatively."""
    around = ["homeostat", *name.split("/")[: -node.level]]
    return str(node.module) if node.level == 0 else ".".join([*around, *filter(None, [node.module])])


def modules_named(name: str, tree: ast.Module) -> set[str]:
    """Everything that is imported, names from packages included."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = whole(name, node)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.seed("order what is sent to a host needs a plain python3.9 and nothing else")
@pytest.mark.parametrize("name", MODULES)
def test_a_shipped_module_needs_nothing_that_is_not_there(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text(), feature_version=(3, 9))
    shipped = {f"homeostat.{each.removesuffix('.py').replace('/', '.')}" for each in MODULES}
    shipped |= {each.removesuffix(".__init__") for each in shipped} | {"homeostat"}
    for module in {whole(name, node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}:
        assert module in shipped or module.split(".")[0] in {*sys.stdlib_module_names, "__future__"}, module
    for module in modules_named(name, tree):
        path = PACKAGE.joinpath(*module.split(".")[1:])
        if module.startswith("homeostat") and (path.with_suffix(".py").exists() or path.is_dir()):
            assert module in shipped, module
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    words = {(ast.unparse(call.func), word.arg) for call in calls for word in call.keywords}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not words & TOO_NEW and not names & {"StrEnum", "Self", "assert_never"}
    assert not any(word == "shell" for _, word in words)


def test_the_first_thing_sent_can_be_read_by_any_python3() -> None:
    ast.parse(BOOT.read_text(), feature_version=(3, 4))
    assert len(BOOT.read_bytes()) < 32_000  # it is one argument


def test_the_same_files_are_the_same_shipment() -> None:
    first = shipment()
    again = shipment.__wrapped__()
    assert first == again
    with zipfile.ZipFile(io.BytesIO(first.body)) as archive:
        assert digest_of({name: archive.read(name) for name in archive.namelist()}) == first.digest
    changed = {"a": b"1", "b": b"23"}
    assert len({digest_of(changed), digest_of({"a": b"12", "b": b"3"}), digest_of({"a": b"1"})}) == 3


@pytest.mark.parametrize("python", OLD)
def test_it_runs_on_every_python_that_is_here(python: str, tmp_path: Path) -> None:
    program = working(python)
    permitted = tmp_path / "drills.json"
    given = {"enabled": True, "injectors": ["node_kill", "node_cpu"], "state_dir": str(tmp_path / "state")}
    permitted.write_text(json.dumps(given | {"profiles": {"web": {"command_line": "hd-web-of-nobody .*"}}}))
    permitted.chmod(0o600)
    sent = shipment()
    boot = [program, "-I", "-S", "-c", BOOT.read_text(), "c1", str(permitted), sent.digest]
    booted = subprocess.run(boot, input=sent.body, capture_output=True, check=True)
    folder = json.loads(booted.stdout.splitlines()[-1])["folder"]

    def tell(command: str, said: str) -> list[dict[str, object]]:
        argv = [program, "-I", "-S", "-W", "error", folder, command, "c1", str(permitted)]
        done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False)
        assert done.stderr == "", done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    kill = {"fault": "f-1", "injector": "node_kill", "target": {"profile": "web"}}
    (answer,) = tell("verb", json.dumps({"verb": "plan", "record": kill}))
    assert answer["error"]["kind"] == "NotFound"  # type: ignore[index]
    cpu = {"fault": "f-2", "injector": "node_cpu", "target": {}}
    (answer,) = tell("verb", json.dumps({"verb": "plan", "record": cpu}))
    assert answer["answer"]["cpus"]  # type: ignore[index]
    asked = [{"ask": "clock"}, {"ask": "status"}, {"ask": "holds", "profile": "haproxy", "how": "listens"}]
    asked[2] |= {"endpoint": "tcp://127.0.0.1:9"}
    clock, status, holds = tell("serve", "".join(f"{json.dumps(each)}\n" for each in asked))
    assert int(str(clock["answer"])) > 0 and status["answer"] and holds == {"answer": False}
    watch = {"name": "w", "cmdline": "hd-nobody", "sightings_file": "unused"}
    *_, ended = tell("watch", json.dumps(watch) + "\n")
    assert "ended" in ended


@pytest.mark.parametrize("python", ["python3.6", "python3.7", "python3.8"])
def test_an_older_python_is_told_what_is_missing(python: str, tmp_path: Path) -> None:
    program = working(python)
    argv = [program, "-I", "-S", "-c", BOOT.read_text(), "c1", str(tmp_path / "none"), "0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "NotAllowed" and "install 3.9" in error["message"]
