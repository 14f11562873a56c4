"""The two halves and their one direction: ui imports transact, never the reverse; each in layers, and no circles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "transact").rglob("*.py"))
PAGES = sorted((ROOT / "ui" / "pages").glob("*.py"))
LAYERS = {
    "transact": (
        "assets", "redaction", "errors", "progress", "wording", "runtime", "spec", "layers", "models", "text",
        "observing", "scoring", "repair", "planning", "cutting", "evaluation", "analysis", "compression", "recovery",
        "export", "streaming", "__init__", "cli", "__main__",
    ),
    "ui": (
        "__init__", "errors", "format", "server", "text_sources", "state", "work", "figures", "views", "context",
        "pages", "events", "page_table", "health", "endpoints", "application", "__main__",
    ),
}  # fmt: skip
"""Files and folders of both packages in the order in which they may import each other, lowest first."""


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for package in LAYERS for path in sorted((ROOT / package).rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Everything that is imported anywhere in a file, in functions and for type checkers too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def _imported(path: Path) -> set[str]:
    """Our own modules among them; of `from package import module` the module alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports relatively, which these tests do not follow"
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {inner[name] if inner[name] in MODULES else node.module for name in inner}
    return found & MODULES.keys()


def _layer(module: str) -> int:
    package, *rest = module.split(".")
    return LAYERS[package].index(rest[0] if rest else "__init__")


def _circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that import each other, by peeling off whatever imports nothing that is left."""
    left = {module: set(others) for module, others in imports.items()}
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    return [{module, *(others & left.keys())} for module, others in left.items()]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_nothing_of_the_app(path):
    foreign = {name for name in _imports(path) if name.split(".")[0] in {"ui", "app", "gradio", "plotly"}}
    assert not foreign


@pytest.mark.parametrize("package", LAYERS)
def test_no_file_imports_one_of_a_layer_above_its_own(package):
    against = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in sorted(_imported(path))
        if module.split(".")[0] == other.split(".")[0] == package and _layer(other) > _layer(module)
    ]
    assert not against


@pytest.mark.parametrize("package", LAYERS)
def test_the_order_names_every_file_and_folder_there_is(package):
    there = {module.split(".")[1] if "." in module else "__init__" for module in MODULES if module.startswith(package)}
    assert there == set(LAYERS[package])


def test_no_files_import_each_other_in_a_circle():
    assert not _circles({module: _imported(path) for module, path in MODULES.items()})


def test_a_circle_is_found_and_what_only_leads_to_it_is_told_too():
    assert not _circles({"a": {"b"}, "b": {"c"}, "c": set()})
    assert {"a", "b"} in _circles({"a": {"b"}, "b": {"a"}, "c": set()})
    assert {"a"} in _circles({"a": {"a"}})


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
