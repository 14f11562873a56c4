"""Draws the picture and the table of docs/architecture.md from the imports of the code: python -m docs.architecture

Each folder of `transact` and `ui` is one part, and so is each file that lies directly in one of the two. Imports inside
functions and those for type checking alone count as well.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = Path(__file__).with_suffix(".md")
PACKAGES = ("transact", "ui")
BEGIN, END = "<!-- drawn -->", "<!-- /drawn -->"

Graph = Mapping[str, frozenset[str]]
"""Of each part, the parts that it imports."""


def graph(root: Path = ROOT) -> Graph:
    """The parts of both packages and what each of them imports, itself left out."""
    files = {_module(path, root): path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))}
    imports: dict[str, set[str]] = {}
    for module, path in files.items():
        part = _part(module, path)
        imported = (_owner(name, files) for name in _imported(path, module))
        found = {_part(owner, files[owner]) for owner in imported if owner is not None}
        imports.setdefault(part, set()).update(found - {part})
    return {part: frozenset(found) for part, found in imports.items()}


def ordered(imports: Graph) -> list[tuple[str, ...]]:
    """The parts from the lowest to the highest: each stands above all that it imports.

    Parts that import each other in a circle, of which there should be none, stand together in one tuple.
    """
    above = {part: _reached(part, imports) for part in imports}
    circles = {part: tuple(sorted({part} | {other for other in above[part] if part in above[other]})) for part in above}
    level: dict[tuple[str, ...], int] = {}

    def height(circle: tuple[str, ...]) -> int:
        if circle not in level:
            below = {circles[other] for part in circle for other in imports[part]} - {circle}
            level[circle] = max((height(other) + 1 for other in below), default=0)
        return level[circle]

    # the app above the library, whatever the length of its chains
    return sorted(set(circles.values()), key=lambda circle: (circle[0].split("/")[0], height(circle), circle))


def drawn(root: Path = ROOT) -> str:
    """The picture (mermaid) and the table, as they stand between the marks of the document."""
    imports = graph(root)
    lines = ["```mermaid", "flowchart TB"]
    for package in PACKAGES:
        lines.append(f"    subgraph {package}_files[{package}/]")
        lines += [
            f'        {_id(part)}["{_label(part)}"]' for part in _flat(ordered(imports)) if _package(part) == package
        ]
        lines.append("    end")
    direct = _without_what_follows(imports)
    lines += [f"    {_id(low)} --> {_id(high)}" for high in _flat(ordered(imports)) for low in sorted(direct[high])]
    lines += ["```", "", "| | part | what it is | imports |", "|---|---|---|---|"]
    for place, circle in enumerate(ordered(imports), 1):
        for part in circle:
            named = ", ".join(f"`{other}`" for other in _flat(ordered(imports)) if other in imports[part])
            lines.append(f"| {place} | `{part}` | {_said(part, root)} | {named} |")
    return "\n".join(lines)


def committed(document: Path = DOCUMENT) -> str:
    """What stands between the marks of the document now."""
    return _split(document)[1].strip()


def main() -> None:
    """Write the picture and the table into the document."""
    before, _, after = _split(DOCUMENT)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{drawn()}\n\n{END}{after}", encoding="utf-8")


def _split(document: Path) -> tuple[str, str, str]:
    before, begun, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    inside, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{document.name} has no lines {BEGIN} and {END} for the picture to stand between.")
    return before, inside, after


def _module(path: Path, root: Path) -> str:
    """The dotted name of a file's module; that of a package is its folder's."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _part(module: str, path: Path) -> str:
    """The part that a module belongs to: a folder directly in a package, or a file that lies there."""
    package, *below = module.split(".")
    if not below:
        return package
    is_folder = len(below) > 1 or path.stem == "__init__"
    return f"{package}/{below[0]}" + ("" if is_folder else ".py")


def _imported(path: Path, module: str) -> Iterable[str]:
    """The dotted names that a file imports, wherever in it; of `from a import b` the name a.b."""
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _owner(name: str, files: Mapping[str, Path]) -> str | None:
    """The module of ours that an imported name is, or lies in; None for those of others."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


def _reached(part: str, imports: Graph) -> set[str]:
    """All that a part imports, directly or through others."""
    found: set[str] = set()
    waiting = list(imports[part])
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += imports[each]
    return found


def _without_what_follows(imports: Graph) -> dict[str, set[str]]:
    """The imports of each part that no other of its imports brings along; those of a circle all stay."""
    reached = {part: _reached(part, imports) for part in imports}
    return {
        part: {
            low
            for low in lows
            if not any(low in reached[other] and part not in reached[other] for other in lows - {low})
        }
        for part, lows in imports.items()
    }


def _flat(circles: Iterable[tuple[str, ...]]) -> list[str]:
    return [part for circle in circles for part in circle]


def _package(part: str) -> str:
    return part.split("/")[0]


def _label(part: str) -> str:
    """How a part is named in the picture, within the frame of its package."""
    return part.partition("/")[2] or "__init__.py"


def _id(part: str) -> str:
    return re.sub(r"\W", "_", part)


def _said(part: str, root: Path) -> str:
    """The first sentence of a part's docstring, in one line that a table can hold."""
    file = root / part if part.endswith(".py") else root / part / "__init__.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None
    paragraph = " ".join((docstring or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph)[0].replace("|", "\\|")


if __name__ == "__main__":
    main()
