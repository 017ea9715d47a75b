"""The folder of a run: written while it runs, frozen with its verdict, checked for ever after.

    plan.json        what was going to be done
    ledger.jsonl     what must be undone (written by who injects)
    history.jsonl    facts, numbered, each on disk before the next thing happens
    samples/*.jsonl  what each monitor saw
    verdict.json     rows and verdict, before any clean-up
    cleanup.jsonl    what the clean-up did
    manifest.json    the hash of each file above

The verdict is on disk before the clean-up begins, so a clean-up that fails cannot lose it, and what it starts
cannot count as recovered. After that, a file that changes is found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from homeostat.drills.language.parser import drill_of, record_of
from homeostat.drills.records import facts
from homeostat.kernel.errors import AlreadyRunning, BadInput, CorruptState, NotFound
from homeostat.kernel.files import append_whole, read_json, write_json

PLAN, HISTORY, LEDGER = "plan.json", "history.jsonl", "ledger.jsonl"
VERDICT, CLEANUP, MANIFEST, SAMPLES = "verdict.json", "cleanup.jsonl", "manifest.json", "samples"
_READ_ONLY = 0o400
_AFTER_THE_VERDICT = (LEDGER, CLEANUP)
"""Files that still grow during the clean-up; hashed when that is over."""


class FactLog:
    """An append-only file of numbered facts; each is on disk when `note` returns."""

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        """A new one; with `goes_on`, what a dead tool left, without the line that it did not end."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (0 if goes_on else os.O_EXCL)
        left = read_log(path) if goes_on else ()
        self._path, self._number = path, len(left)
        self._last_ns = left[-1].at_ns if left else 0
        try:
            self._file: BinaryIO | None = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)
        except FileExistsError:
            raise AlreadyRunning(f"{path} is there already: a history is written once") from None
        self._file.truncate(sum(len(facts.encode(each)) for each in left))

    def note(self, fact: facts.Fact, at_ns: int) -> facts.FactEntry:
        """Add a fact. CorruptState when the log is closed or time would go back."""
        if self._file is None:
            raise CorruptState(f"{self._path} is frozen; nothing can be added")
        if at_ns < self._last_ns:
            raise CorruptState(
                f"{self._path}: {at_ns} is before the last fact; one clock, and it never goes back"
            )
        entry = facts.FactEntry(self._number + 1, at_ns, fact)
        append_whole(self._file.fileno(), facts.encode(entry))
        self._number, self._last_ns = entry.number, at_ns
        return entry

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Recording:
    """A run's folder while it runs. Made by `begin`; with `with`, its files are closed whatever happens.

    `goes_on`: of a run whose tool died before its end; the caller knows that nobody else writes it.
    """

    def __init__(self, folder: Path, *, goes_on: bool = False) -> None:
        self.folder = folder
        self._history = FactLog(folder / HISTORY, goes_on=goes_on)
        self._cleanup: FactLog | None = None

    @classmethod
    def begin(cls, folder: Path, plan: facts.RunPlan) -> Recording:
        """The plan is on disk. AlreadyRunning when the folder is there."""
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise AlreadyRunning(f"{folder} is there already: a run has a folder of its own") from None
        (folder / SAMPLES).mkdir(mode=0o700)
        write_json(folder / PLAN, {"format": facts.FORMAT, **asdict(plan), "drill": record_of(plan.drill)})
        return cls(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._history.close()
        if self._cleanup is not None:
            self._cleanup.close()

    def note(self, fact: facts.Fact, at_ns: int) -> facts.FactEntry:
        return self._history.note(fact, at_ns)

    def freeze(self, verdict: Mapping[str, Any]) -> str:
        """The end of the evidence: verdict and hashes are on disk. The digest of the evidence."""
        self._history.close()
        write_json(self.folder / VERDICT, verdict)
        return _sealed(self.folder, without=_AFTER_THE_VERDICT)

    def cleaned_up(self, step: facts.CleanedUp, at_ns: int) -> None:
        """What the clean-up did; only after the verdict."""
        if not (self.folder / MANIFEST).exists():
            raise CorruptState(f"{self.folder}: no clean-up before the verdict is frozen")
        if self._cleanup is None:
            self._cleanup = FactLog(self.folder / CLEANUP)
        self._cleanup.note(step, at_ns)

    def close(self) -> str:
        """Everything is done; the last files get their hashes, too."""
        if self._cleanup is not None:
            self._cleanup.close()
        return _sealed(self.folder, without=())


def close_frozen(folder: Path) -> str:
    """The end of a run whose tool died in the clean-up: its verdict is there and stays.

    CorruptState when a file is not what it was: a new manifest would hide that.
    """
    if changes := check_folder(folder).changes:
        raise CorruptState(f"{folder}: {'; '.join(changes)}; the run stays open until that is solved")
    return _sealed(folder, without=())


def _sealed(folder: Path, without: tuple[str, ...]) -> str:
    hashes = {name: digest for name, digest in _hashes(folder).items() if name not in without}
    write_json(folder / MANIFEST, {"format": facts.FORMAT, "closed": not without, "sha256": hashes})
    for name in hashes:
        (folder / name).chmod(_READ_ONLY)
    return evidence_digest(hashes)


def evidence_digest(hashes: Mapping[str, str]) -> str:
    """One hash of what the verdict rests on: the same before and after the clean-up."""
    lines = [
        f"{hashes[name]}  {name}\n" for name in sorted(hashes) if name not in (*_AFTER_THE_VERDICT, VERDICT)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """What became of a frozen folder. `digest` is None when it was never frozen."""

    digest: str | None
    closed: bool
    changes: tuple[str, ...]
    """One line a file that is not what it was."""


def check_folder(folder: Path) -> FolderCheck:
    """Every file against its hash; NotFound when this is no run."""
    if not (folder / PLAN).exists():
        raise NotFound(f"{folder}: no run there (it has no {PLAN})")
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        judged = (folder / VERDICT).exists()
        return FolderCheck(None, False, (f"{MANIFEST}: is not there, so nothing is known",) if judged else ())
    said = manifest.get("sha256")
    if manifest.get("format") != facts.FORMAT or not isinstance(said, dict):
        raise CorruptState(f"{folder / MANIFEST}: not a manifest that this version reads")
    found, closed = _hashes(folder), bool(manifest.get("closed"))
    changes = [
        f"{name}: {'is gone' if name not in found else 'has changed'}"
        for name, digest in sorted(said.items())
        if found.get(name) != digest
    ]
    allowed = () if closed else _AFTER_THE_VERDICT
    changes += [
        f"{name}: was not there" for name in sorted(found) if name not in said and name not in allowed
    ]
    return FolderCheck(evidence_digest(said), closed, tuple(changes))


def _hashes(folder: Path) -> dict[str, str]:
    names = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): _sha256(path) for path in sorted(names) if path.suffix in _KEPT}


_KEPT = (".json", ".jsonl")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_log(path: Path) -> tuple[facts.FactEntry, ...]:
    """The facts of a log; a last line without its end is what a killed tool leaves, and is left out.

    CorruptState for a line that is no fact, a number that is missing, and time that goes back.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return ()
    found: list[facts.FactEntry] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        entry = facts.decode(line, f"{path}: line {number}")
        if entry.number != number:
            raise CorruptState(
                f"{path}: line {number} has the number {entry.number}; something was taken out"
            )
        if found and entry.at_ns < found[-1].at_ns:
            raise CorruptState(f"{path}: line {number} is before the line above it")
        found.append(entry)
    return tuple(found)


def read_plan(folder: Path) -> facts.RunPlan:
    """The plan of a run; NotFound when there is none."""
    path = folder / PLAN
    record = read_json(path)
    if record is None:
        raise NotFound(f"{folder}: no run there (it has no {PLAN})")
    try:
        if record["format"] != facts.FORMAT:
            raise ValueError(f"format {record['format']}, this version reads {facts.FORMAT}")
        return facts.RunPlan(
            run=str(record["run"]),
            drill=drill_of(record["drill"]),
            seed=int(record["seed"]),
            victims=tuple(map(str, record["victims"])),
            monitors=tuple(
                facts.MonitorPlan(str(each["id"]), _inside(folder, each["file"]), float(each["period_ms"]))
                for each in record["monitors"]
            ),
            began_at_ns=int(record["began_at_ns"]),
            strict_steps=bool(record["strict_steps"]),
            suite=record["suite"],
            # Runs of before had none of these.
            deviations=tuple(map(str, record.get("deviations", ()))),
            left_out=tuple(
                facts.LeftOut(
                    str(each["monitor"]), str(each["why"]), tuple(map(str, each.get("decided", ())))
                )
                for each in record.get("left_out", ())
            ),
        )
    except (KeyError, TypeError, ValueError, BadInput) as error:
        raise CorruptState(f"{path}: not a plan ({error})") from None


def read_cleanup(folder: Path) -> tuple[facts.CleanedUp, ...]:
    return tuple(each.fact for each in read_log(folder / CLEANUP) if isinstance(each.fact, facts.CleanedUp))


def _inside(folder: Path, name: object) -> str:
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is outside the run")
    return str(name)
