"""What is prepared once and kept: pins, stamps, secrets. The long commands run in the boot test."""

from __future__ import annotations

import re
from pathlib import Path

from homeostat.kernel.files import write_json
from testbed.bootstrap import DATABASES, known_secrets, table_chains
from testbed.configuration import configuration_files
from testbed.plan import Plan, Secrets
from testbed.preparing import REQUIREMENTS, made_once

PLAN = Plan(Secrets("secret", "k" * 32))


def test_every_requirement_is_one_version_with_hashes_and_no_registry_is_named() -> None:
    text = REQUIREMENTS.read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", "\n".join(line for line in text.splitlines() if line[:1] != "#"))
    assert len(entries) == 200
    assert all(re.match(r"[\w.-]+==\S+ \\\n", entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_what_was_asked_for_is_pinned_as_asked() -> None:
    asked = [
        line for line in REQUIREMENTS.with_name("requirements.in").read_text().splitlines() if line[:1] != "#"
    ]
    assert set(asked) <= {line.split()[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line}


def test_a_stage_is_made_again_when_its_words_change_or_it_was_cut_off(tmp_path: Path) -> None:
    stamp, made = tmp_path / "stage.stamp", []
    made_once(stamp, "one", tmp_path, lambda: made.append("first"))
    made_once(stamp, "one", tmp_path, lambda: made.append("not again"))
    made_once(stamp, "two", tmp_path, lambda: made.append("other words"))

    def cut_off() -> None:
        raise KeyboardInterrupt

    try:
        made_once(stamp, "three", tmp_path, cut_off)
    except KeyboardInterrupt:
        made.append("cut off")
    made_once(stamp, "two", tmp_path, lambda: made.append("after the cut"))
    made_once(stamp, "two", tmp_path / "gone", lambda: made.append("without its folder"))
    assert made == ["first", "other words", "cut off", "after the cut", "without its folder"]


def test_secrets_are_those_of_the_prepared_disk_else_new(tmp_path: Path) -> None:
    one, other = known_secrets(tmp_path), known_secrets(tmp_path)
    assert one != other
    assert len(one.key) == 32
    write_json(tmp_path / "secrets.json", {"password": one.password, "key": one.key})
    assert known_secrets(tmp_path) == one


def test_every_database_of_the_settings_is_made() -> None:
    named = {
        name
        for text in configuration_files(PLAN).values()
        for name in re.findall(r"^connection = \S+/(\w+)\?", text, re.MULTILINE)
    }
    assert named | {"nova_cell0"} == set(DATABASES)
    assert set(table_chains(PLAN)) == {"keystone", "placement", "nova", "neutron", "glance", "cinder", "heat"}
