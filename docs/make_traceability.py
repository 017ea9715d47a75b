"""Write docs/traceability.md from the `seed` marks of the tests: `make docs`.

`@pytest.mark.seed("002 a notice within one second")` says which statement of which source document a test shows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

SOURCES = {
    "000": "OPNFV HA test specification",
    "001": "CERN EOS balancing system",
    "002": "OPNFV Doctor",
    "003": "OpenStack Blazar resource monitoring",
    "004": "Pacemaker ManageVE",
    "order": "what was ordered for this release",
}

HEAD = """# Traceability

A statement of a source document, the test that shows it, and the command that runs it. Made from the marks in the tests by
`make docs`; a statement that is not here is not shown yet.

What was seen in long runs, on a lab and on a real OpenStack: [the eight cases of 000](evidence/opnfv-ha.md),
[the drills of the lab](evidence/lab-drills.md), [undo](evidence/undo.md), [kills](evidence/kills.md),
[simulated seeds](evidence/simulation.md). Where each statement of 000 is answered: [openstack](openstack.md).

"""


def marks() -> Iterator[tuple[str, str, str]]:
    """(document, statement, test id) of every mark."""
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.seed":
                    statement = ast.literal_eval(mark.args[0])
                    document, _, text = statement.partition(" ")
                    yield document, text, f"{path.relative_to(ROOT)}::{node.name}"


def page() -> str:
    """The whole page."""
    found = sorted(marks())
    parts = [HEAD]
    for document, title in SOURCES.items():
        rows = [(text, test) for source, text, test in found if source == document]
        if rows:
            parts.append(f"## {document}: {title}\n\n| statement | test | command |\n|---|---|---|\n")
            parts += [
                f"| {text} | `{test.split('::')[1]}` | `.venv/bin/pytest {test}` |\n" for text, test in rows
            ]
            parts.append("\n")
    return "".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("traceability.md").write_text(page())
