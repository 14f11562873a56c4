"""The two halves and their one direction: ui imports transact, never the reverse; pages stand alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "transact").rglob("*.py"))
PAGES = sorted((ROOT / "ui" / "pages").glob("*.py"))


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_library_knows_nothing_of_the_app(path):
    foreign = {name for name in _imports(path) if name.split(".")[0] in {"ui", "app", "gradio", "plotly"}}
    assert not foreign


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_never_import_each_other(path):
    assert not {name for name in _imports(path) if name.startswith("ui.pages")}


def test_the_app_uses_the_public_library_alone():
    lower = {
        (path.name, name)
        for path in (ROOT / "ui").rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] in {"torch", "transformers", "safetensors"} or name.startswith("transact._")
    }
    assert not lower
