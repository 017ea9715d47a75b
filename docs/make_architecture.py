"""Makes the picture and the table of ARCHITECTURE.md from the imports and the docstrings of src/homeostat.

A box is a package or module directly below `homeostat`; an arrow means "imports". An arrow that follows from
others (A imports B and C, and B imports C) is not drawn. `docs/make_architecture.py --check` writes nothing
and exits 1 when the page differs.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
PACKAGE = ROOT / "src" / "homeostat"
BOXES_MAX = 22
BEGIN, END = "<!-- made by docs/make_architecture.py -->", "<!-- end -->"


def parts() -> dict[str, list[Path]]:
    """The parts of the package: name to source files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            found[path.name] = sorted(path.rglob("*.py"))
        elif path.suffix == ".py" and path.stem != "__init__":
            found[path.stem] = [path]
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names below `homeostat` that a file imports, wherever in the file."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="homeostat", level=0, names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("homeostat."):
                yield module.removeprefix("homeostat.")
            case ast.Import(names=names):
                yield from (
                    each.name.removeprefix("homeostat.")
                    for each in names
                    if each.name.startswith("homeostat.")
                )


def arrows(found: Mapping[str, list[Path]]) -> dict[str, set[str]]:
    """The parts that each part imports."""
    drawn: dict[str, set[str]] = defaultdict(set)
    for part, files in found.items():
        for file in files:
            for name in _imported(ast.parse(file.read_text())):
                other = name.partition(".")[0]
                if other in found and other != part:
                    drawn[part].add(other)
    return {part: drawn[part] for part in found}


def layers(drawn: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each part: one above the highest that it imports. ValueError: a circle."""
    floors: dict[str, int] = {}

    def floor(part: str, below: tuple[str, ...]) -> int:
        if part in below:
            raise ValueError(f"a circle of imports: {' -> '.join((*below, part))}")
        if part not in floors:
            floors[part] = 1 + max((floor(each, (*below, part)) for each in drawn[part]), default=-1)
        return floors[part]

    for part in drawn:
        floor(part, ())
    return floors


def reduced(drawn: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others."""

    def reach(part: str) -> set[str]:
        return set().union(drawn[part], *(reach(each) for each in drawn[part]))

    return {
        part: {each for each in others if not any(each in reach(more) for more in others - {each})}
        for part, others in drawn.items()
    }


def first_line(files: list[Path]) -> str:
    """The first sentence of a part's own docstring."""
    own = next((file for file in files if file.name == "__init__.py"), files[0])
    text = (ast.get_docstring(ast.parse(own.read_text())) or "").partition("\n\n")[0]
    return " ".join(text.split())


def block() -> str:
    """The generated part of the page. ValueError: too many boxes, or a circle."""
    found = parts()
    if len(found) > BOXES_MAX:
        raise ValueError(f"{len(found)} boxes; the picture holds {BOXES_MAX}")
    drawn = arrows(found)
    floors = layers(drawn)
    lines = ["```mermaid", "flowchart TB"]
    for level in sorted(set(floors.values()), reverse=True):
        here = sorted(part for part in found if floors[part] == level)
        lines += [f"  {part}[{part}{'/' if len(found[part]) > 1 else '.py'}]" for part in here]
    lines += [f"  {part} --> {each}" for part, others in reduced(drawn).items() for each in sorted(others)]
    lines += ["```", ""]
    count = sum(map(len, drawn.values()))
    lines += [f"{len(found)} parts, {count} arrows in all; arrows that follow from others are not drawn.", ""]
    lines += ["| part | what it is | imports |", "|---|---|---|"]
    for part in sorted(found, key=lambda each: (-floors[each], each)):
        name = f"`{part}/`" if len(found[part]) > 1 else f"`{part}.py`"
        lines.append(
            f"| {name} | {first_line(found[part])} | {', '.join(sorted(drawn[part])) or 'nothing'} |"
        )
    return "\n".join(lines)


def page() -> str:
    """ARCHITECTURE.md with the generated part made anew."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block()}\n{END}{after}"


if __name__ == "__main__":
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif made != PAGE.read_text():
        sys.exit("ARCHITECTURE.md differs from the imports: run `make docs`")
