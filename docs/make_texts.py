"""Write docs/texts.md: the texts that a user of Homeostat can meet, each once, read out of the code by `make docs`.

The commands come from the command line itself, everything else from the syntax trees of the modules and the
text of the templates: nothing is run, nothing is left out because no test reached it. A value that is put in
at run time stands as `{name}`. Not here: the settings (docs/configuration.md is made of their descriptions),
log lines below warning, and what a checker of the simulation says about a planted bug.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "src" / "homeostat"

HEAD = """# Texts

The texts that a user of Homeostat can meet, each once, in groups. `{name}` is a value of that moment. Descriptions of settings
are in [configuration.md](configuration.md); words of our own are explained in [glossary.md](glossary.md).

This page is made from the code by `make docs`. It is there to be read: a text that somebody who knows no line of the code does
not understand is a fault of the text.
"""

ROOTS = ("Exception", "ValueError", "HomeostatError", "HTTPException")
"""Errors are what descends from these; the texts in their calls are shown."""
LOUD = {"warning", "error", "exception", "critical", "fatal"}
QUIET = {"debug", "info"}
UNSEEN = re.compile(r"migrations/versions/|sim/(?!cli\.py|__main__\.py|nemesis\.py)")
"""Modules whose texts nobody reads who only uses the product: the simulator names its own moments in a history."""
PROTOCOL = re.compile(
    r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|BEGIN|ANALYZE|RELEASE|ROLLBACK|SAVEPOINT"
    r"|READ COMMITTED|REPEATABLE READ|HTTP/1|GET \{|POST \{|public, max-age|default-src|Input should be)\b"
)
WORDS = re.compile(r"[A-Za-z]{2,}[,;:.!?)\]]*\s+\S*[A-Za-z{]")

Found = tuple[str, str]
"""A group and one text of it."""


def page() -> str:
    """The whole page."""
    groups = texts()
    parts = [HEAD]
    for name, lines in groups.items():
        parts.append(f"\n## {name}\n\n")
        parts += [f"- {line}\n" for line in lines]
    return "".join(parts)


def texts() -> dict[str, list[str]]:
    """Every group with its texts, sorted; a text stands in the first group that has it."""
    found: dict[str, list[str]] = {"Commands": list(dict.fromkeys(_commands()))}
    seen = set(found["Commands"])
    names = (
        "Command output",
        "Reasons",
        "Pages",
        "Errors",
        "Log lines, warning and above",
        "API descriptions",
    )
    rows = [*_modules(), *(("Pages", text) for text in _pages())]
    for name in (*names, "Notices, reports and other sentences"):
        lines = sorted(
            {text for group, text in rows if group == name} - seen, key=lambda text: (text.lower(), text)
        )
        seen.update(lines)
        found[name] = lines
    return found


# The command line.


def _commands() -> Iterator[str]:
    from homeostat.cli import app

    command = typer.main.get_command(app)
    yield from _described("homeostat", command)


def _described(path: str, command: object) -> Iterator[str]:
    help_ = _one_line(getattr(command, "help", "") or "")
    yield f"`{path}`: {help_}"
    if epilog := getattr(command, "epilog", None):
        yield _one_line(epilog)
    for each in getattr(command, "params", ()):
        if isinstance(each, TyperOption) and each.help:
            yield f"`{'/'.join(each.opts)}`: {_one_line(each.help)}"
        elif isinstance(each, TyperArgument) and each.help:
            yield f"`{each.metavar or (each.name or '').upper()}`: {_one_line(each.help)}"
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from _described(f"{path} {name}", below)


# The modules.


def _modules() -> Iterator[Found]:
    trees = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    errors = _descendants(trees.values(), ROOTS)
    for name, tree in trees.items():
        if not UNSEEN.match(name):
            yield from _Reader(name, errors).read(tree)


def _descendants(trees: Iterable[ast.Module], roots: Iterable[str]) -> set[str]:
    """The names of all classes that descend from `roots`."""
    parents = {
        node.name: {_last(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = set(roots)
    while more := {name for name, bases in parents.items() if bases & known} - known:
        known |= more
    return known


class _Reader:
    """Goes through one module; what a text is follows from the call or the class around it."""

    def __init__(self, name: str, errors: set[str]) -> None:
        self.name, self.errors = name, errors

    def read(self, tree: ast.AST) -> Iterator[Found]:
        """Every text of the module with its group."""
        yield from self._visit(tree, "Notices, reports and other sentences")

    def _visit(self, node: ast.AST, group: str | None) -> Iterator[Found]:
        match node:
            case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from self._body(node, group)
            case ast.Call():
                inner = self._group_of(node, group)
                for child in ast.iter_child_nodes(node):
                    yield from self._visit(child, inner)
            case ast.Expr(value=ast.Constant()) | ast.Assert():
                return
            case ast.Constant() | ast.JoinedStr():
                if group is not None and (text := _shown(node)):
                    yield group, text
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from self._visit(child, group)

    def _body(
        self, node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, group: str | None
    ) -> Iterator[Found]:
        if isinstance(node, ast.ClassDef) and any("Enum" in _last(base) for base in node.bases):
            group = "Reasons"
        described = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            isinstance(each, ast.Call) and _last(each.func) in ("get", "post", "put", "patch", "delete")
            for each in node.decorator_list
        )
        if described and not self.name.endswith("pages.py") and (doc := ast.get_docstring(node)):
            yield "API descriptions", _one_line(doc)
        for child in ast.iter_child_nodes(node):
            yield from self._visit(child, group)

    def _group_of(self, call: ast.Call, group: str | None) -> str | None:
        name = _last(call.func)
        owner = _last(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if name in self.errors:
            return "Errors"
        if "log" in owner.lower():
            return "Log lines, warning and above" if name in LOUD else None
        if name in ("Typer", "Option", "Argument", "text", "compile", "Column", "CheckConstraint"):
            return None
        if name in ("print", "echo", "show_table", "show_items", "show_record", "say"):
            return "Command output"
        if name in ("Field", "Query", "Path", "Header", "Body"):
            return None if self.name.endswith(("settings.py", "site.py")) else "API descriptions"
        return group


def _last(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value) | ast.Call(func=value):
            return _last(value)
        case _:
            return ""


def _shown(node: ast.Constant | ast.JoinedStr) -> str:
    """The text of a constant or an f-string; empty when it is no text for people."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(_part(each) for each in node.values)
    else:
        text = node.value if isinstance(node.value, str) else ""
    line = _one_line(text)
    is_prose = WORDS.search(line) and not PROTOCOL.match(text)
    return line if is_prose else ""


def _part(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=value):
            return f"{{{_last(value) or '…'}}}"
        case _:
            return ""


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def _one_line(text: str) -> str:
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


# Templates and the script of the pages.

_EXPRESSION = re.compile(r"{{.*?}}|{%.*?%}|{#.*?#}", re.S)
_VALUE = re.compile(r"{{(.*?)}}", re.S)
_STATEMENT = re.compile(r"{%.*?%}|{#.*?#}", re.S)
_TAG = re.compile(r"<[a-z][^<>]*>", re.S)
_QUOTED = re.compile(r'"([^"\n]*)"|`([^`\n]*)`')


def _pages() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.html")):
        source = path.read_text()
        for expression in _EXPRESSION.findall(source):
            for quoted, _ in _QUOTED.findall(expression):
                if WORDS.search(quoted) and "<" not in quoted:
                    yield _one_line(quoted)
        reader = _HtmlTexts()
        marked = _STATEMENT.sub("\x00", _VALUE.sub(_value, source))
        reader.feed(_TAG.sub(lambda tag: tag[0].replace("\x00", " "), marked))
        reader.close()
        yield from reader.found
    for path in sorted((PACKAGE / "web" / "static").glob("*.js")):
        for quoted, template in _QUOTED.findall(re.sub(r"(?m)//.*$", "", path.read_text())):
            text = _one_line(re.sub(r"\${.*?}", "{…}", quoted or template))
            if WORDS.search(text) and text != "use strict" and "px" not in text:
                yield text


def _value(expression: re.Match[str]) -> str:
    words = re.findall(r"[A-Za-z_]+", re.sub(r'"[^"]*"', "", expression[1]).split("|")[0])
    return f"{{{words[-1] if words else '…'}}}"


class _HtmlTexts(HTMLParser):
    """Text between tags and in the attributes that are read out or shown."""

    SHOWN = ("title", "aria-label", "placeholder", "alt")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self._inside.append(tag)
        for name, value in attrs:
            if name in self.SHOWN and value:
                self._add(value.replace("\x00", " "))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            for each in data.split("\x00"):
                self._add(each)

    def _add(self, text: str) -> None:
        line = _one_line(text.replace("\x00", " ")).strip(" ·,;:|")
        if re.search(r"[A-Za-z]{2,}", re.sub(r"{.*?}", "", line)):
            self.found.append(line)


if __name__ == "__main__":
    (DOCS / "texts.md").write_text(page())
