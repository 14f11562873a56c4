"""The API reference as HTML that reads offline: `python -m docs.build FOLDER` (`make docs`), one page a module."""

import pkgutil
import sys
from pathlib import Path

from pdoc import render
from pdoc.doc import Module, Variable

import transact

_TEMPLATES = Path(__file__).with_name("templates")


def build(folder: Path) -> dict[str, Module]:
    """Write the pages, `index.html` and the search index of `transact` to `folder`; returns what was written about.

    The pages are listed here, as pdoc by itself takes only modules that share their name with a public function.
    """
    render.configure(docformat="markdown", footer_text="TransAct Explorer", template_directory=_TEMPLATES)
    found = [module.name for module in pkgutil.walk_packages(transact.__path__, "transact.")]
    names = ["transact", *(name for name in found if "._" not in name)]
    modules = {name: Module.from_name(name) for name in names}
    _explain_constants(modules)
    for name, module in modules.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render.html_module(module, modules), encoding="utf-8")
    (folder / "index.html").write_text(render.html_index(modules), encoding="utf-8")
    (folder / "search.js").write_text(render.search_index(modules), encoding="utf-8")
    return modules


def _explain_constants(modules: dict[str, Module]) -> None:
    """Give the package's constants the docstrings of the modules that define them: a value does not know its own."""
    explained = {
        member.name: member.docstring
        for module in modules.values()
        for member in module.own_members
        if isinstance(member, Variable) and member.docstring
    }
    for member in modules["transact"].own_members:
        if isinstance(member, Variable):
            member.docstring = explained.get(member.name, "")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
