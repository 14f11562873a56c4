"""Functions, files and signatures that can be read at once: the limits of CONTRIBUTING.md's section on style."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("transact", "ui") for path in (ROOT / package).rglob("*.py"))
MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_FILE, MOST_PARAMETERS = 60, 400, 6


def _too_large(source: str) -> Iterator[tuple[str, str]]:
    """What in a file is over a limit, and its size; neither `self` nor parameters with a default count."""
    lines = len(source.splitlines())
    if lines > MOST_LINES_OF_A_FILE:
        yield "the file", f"{lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines, parameters = node.end_lineno - node.lineno + 1, _required(node.args)
            if lines > MOST_LINES_OF_A_FUNCTION or parameters > MOST_PARAMETERS:
                yield node.name, f"{lines} lines, {parameters} parameters"


def _required(arguments: ast.arguments) -> int:
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    own = positional[:1] in (["self"], ["cls"])
    named = sum(default is None for default in arguments.kw_defaults)
    return len(positional) - own - len(arguments.defaults) + named


def test_nothing_is_too_large():
    large = {
        (path.relative_to(ROOT).as_posix(), name): size
        for path in FILES
        for name, size in _too_large(path.read_text(encoding="utf-8"))
    }
    assert large == {}


def test_what_is_too_large_is_found():
    body = "    pass\n" * 60
    assert list(_too_large(f"def long():\n{body}")) == [("long", "61 lines, 0 parameters")]
    assert list(_too_large("def wide(self, a, b, c, *, d, e, f, g): ...")) == [("wide", "1 lines, 7 parameters")]
    assert list(_too_large("def narrow(a, b, c, d, e, f, g=1, *, h=2, **others): ...")) == []
    assert list(_too_large("value = 1\n" * 401)) == [("the file", "401 lines")]
