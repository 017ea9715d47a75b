"""Every reference in the record of every component leads to what its Protocol says."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import typer
from examples.component.component import COMPONENT as EXAMPLE
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Table

from homeostat.components import COMPONENTS, catalogue, checkers, cli_entries, write_path
from homeostat.contracts.component import (
    Component,
    EventSentence,
    Foundation,
    HostExposure,
    InvariantChecker,
    OwnerLookup,
    Reference,
    ServerAssembly,
    SimulatedUse,
)
from homeostat.kernel.journal_rules import ReplayRules, RetentionRules
from homeostat.sim.checkers import FRAME_CHECKERS, actions, faults, hosts, leases, recoveries

ALL = (*COMPONENTS, EXAMPLE)


def takes_as_many(found: Any, protocol: type) -> bool:
    """Whether it can be called as the Protocol says, and is awaited when that returns an awaitable."""
    wanted = inspect.signature(protocol.__call__)
    given = [each for each in wanted.parameters.values() if each.name != "self"]
    try:
        inspect.signature(found).bind(*given)
    except TypeError:
        return False
    return inspect.iscoroutinefunction(found) == str(wanted.return_annotation).startswith("Awaitable")


def returns(found: Any, kind: str) -> bool:
    return str(inspect.signature(found).return_annotation).startswith(kind)


def is_event_module(found: Any) -> bool:
    return bool(found.EVENTS) and all(
        is_dataclass(event) and isinstance(getattr(event, "VERSION", 1), int) for event in found.EVENTS
    )


def is_history(found: Any) -> bool:
    return isinstance(found.UPCASTS, dict) and isinstance(found.EARLIER_KINDS, dict)


FITS: Mapping[str, Callable[[Any], bool]] = {
    "tables": lambda found: any(isinstance(part, Table) for part in vars(found).values()),
    "settings": lambda found: issubclass(found, BaseModel) and found() is not None,
    "events": is_event_module,
    "history": is_history,
    "sentence": lambda found: takes_as_many(found, EventSentence) and found(object(), "toy/1") == "",
    "owners": lambda found: takes_as_many(found, OwnerLookup) and returns(found, "Mapping"),
    "retention": lambda found: isinstance(found, RetentionRules),
    "replay": lambda found: isinstance(found, ReplayRules),
    "foundation": lambda found: takes_as_many(found, Foundation),
    "write_path": lambda found: len(inspect.signature(found).parameters) == 1,
    "server": lambda found: takes_as_many(found, ServerAssembly),
    "routers": lambda found: isinstance(found, APIRouter),
    "cli": lambda found: isinstance(found, typer.Typer) or callable(found),
    "exposure": lambda found: takes_as_many(found, HostExposure),
    "simulated_use": lambda found: takes_as_many(found, SimulatedUse),
    "checkers": lambda found: takes_as_many(found, InvariantChecker),
}


def references(component: Component) -> list[tuple[str, Reference[Any]]]:
    """Every reference of a record, with the field that it is in."""
    found = []
    for field in fields(component):
        value = getattr(component, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            each = getattr(each, "commands", each)
            if isinstance(each, Reference):
                found.append((field.name, each))
    return found


EVERY = [
    pytest.param(field, reference, id=f"{component.name}-{field}-{reference.place}")
    for component in ALL
    for field, reference in references(component)
]


@pytest.mark.parametrize(("field", "reference"), EVERY)
def test_a_reference_leads_to_what_its_field_promises(field: str, reference: Reference[Any]) -> None:
    assert FITS[field](reference.resolve())


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("server", "homeostat.faults.server:ingest_dependencies"),
        ("owners", "homeostat.faults.journal:sentence"),
        ("replay", "homeostat.faults.journal:RETENTION"),
        ("tables", "homeostat.faults.journal:sentence"),
    ],
)
def test_a_reference_to_something_else_is_found(field: str, place: str) -> None:
    wrong = Reference[Any](place).resolve()
    assert not hasattr(wrong, "__dict__") or not FITS[field](wrong)


def test_a_reference_to_nothing_says_so() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        Reference[Any]("homeostat.faults.journal:nothing").resolve()


def test_names_are_given_once() -> None:
    names = [component.name for component in ALL]
    assert len(set(names)) == len(names)
    commands = [(entry.under, entry.name) for entry in cli_entries(ALL)]
    assert len(set(commands)) == len(commands)
    assert catalogue(ALL).kinds() > catalogue().kinds()


def test_one_component_equips_the_write_path() -> None:
    assert write_path()
    with pytest.raises(LookupError, match="0 components equip the write path"):
        write_path(())
    with pytest.raises(LookupError, match="2 components"):
        write_path((*COMPONENTS, replace(EXAMPLE, write_path=Reference("x:y"))))


def test_every_checker_is_exported_once_by_a_component_or_is_the_frames_own() -> None:
    modules = (actions, faults, hosts, leases, recoveries)
    written = {part for module in modules for name, part in vars(module).items() if name.startswith("check_")}
    known = [*FRAME_CHECKERS, *checkers()]
    assert len(known) == len(set(known)) == 17
    assert set(known) == written


def test_records_load_nothing_heavy() -> None:
    heavy = ("sqlalchemy", "pydantic", "fastapi", "typer", "nats", "jinja2", "homeostat.kernel.journal")
    program = (
        "import sys, homeostat.components, examples.component.component; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
