"""The undo keeper: whatever was broken on this host on purpose is undone in time, whoever dies.

One folder, standard library only, any python3 from 3.8: it can be copied to a host and run there, alone, and
so it names its own modules relatively. It never injects anything.

Who injects gives `orders`: words in a `folder`, among them the `steps` of the undo. `keeping` reads them and
decides what is due (`deadlines`); `undoing` does one step, with `network` and `programs` for what needs them;
`guard` sees to it that somebody keeps. The invariants stand with the parts: a process is the one that was
meant (`machine`), a word on disk is whole (`folder`), a step is data and no command (`steps`), no act follows
its own undo (`keeping`), whoever is killed is started again (`guard`).
"""

from __future__ import annotations

from .deadlines import DEADLINE_S, due_ns, margin_s
from .folder import Folder, KeeperError, Refused
from .guard import sign_of_life, start
from .machine import Process, identify, lives, now_ns, send, stat_of, within
from .network import entering, run_tool
from .orders import add, arm, halt, injected, outcome, renew, replace, resume, status, undo
from .programs import permit
from .steps import (
    Step,
    step_chain,
    step_cont,
    step_kill,
    step_nothing,
    step_program,
    step_qdisc,
    step_remove,
    step_table,
)
from .undoing import undo_step, verify_step

__all__ = [
    "DEADLINE_S",
    "Folder",
    "KeeperError",
    "Process",
    "Refused",
    "Step",
    "add",
    "arm",
    "due_ns",
    "entering",
    "halt",
    "identify",
    "injected",
    "lives",
    "margin_s",
    "now_ns",
    "outcome",
    "permit",
    "renew",
    "replace",
    "resume",
    "run_tool",
    "send",
    "sign_of_life",
    "start",
    "stat_of",
    "status",
    "step_chain",
    "step_cont",
    "step_kill",
    "step_nothing",
    "step_program",
    "step_qdisc",
    "step_remove",
    "step_table",
    "undo",
    "undo_step",
    "verify_step",
    "within",
]
