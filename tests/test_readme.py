"""What README.md and the other documents promise: the example runs, links and paths lead somewhere, the header fits."""

import re
import shutil
import subprocess
import sys

import pytest

import benchmarks.quality as quality
from docs import architecture
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.long
def test_the_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "transact").symlink_to(ROOT / "transact")
    run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "'reference_perplexity'" in run.stdout
    assert "Proved: a fresh process" in (tmp_path / "pruned-model" / "README.md").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "pruned-model")


def test_the_space_header():
    header = dict(re.findall(r"^(\w+): (.*)$", README.split("---")[1], flags=re.MULTILINE))
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    assert header["python_version"] == '"3.12"' and header["license"] == "apache-2.0"
    assert len(header["short_description"]) <= 60  # the hub's limit
    assert (ROOT / header["app_file"]).exists()
    assert header["hf_oauth"] == "true" and "hf_oauth_scopes:\n  - contribute-repos\n" in README.split("---")[1]


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def test_pictures_and_links_lead_somewhere():
    broken = []
    for name in DOCUMENTS:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", _read(name)):
            place = (ROOT / name).parent / target if target else ROOT / name
            if not place.exists() or (anchor and anchor not in _anchors(place.read_text(encoding="utf-8"))):
                broken.append(f"{name}: {target}#{anchor}")
    assert not broken


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    text = _read(name).replace(architecture.committed(), "")
    named = re.findall(r"`((?:transact|ui|tests|assets|benchmarks|docs|\.ci)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_document_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\(([\w/.-]+\.(?:md|ipynb))\)", README))
    assert {name for name in DOCUMENTS if name != "README.md"} <= linked


def test_the_picture_of_the_code_is_what_its_imports_draw():
    assert architecture.committed() == architecture.drawn(), "python -m docs.architecture draws it anew"


def test_no_arrow_of_the_picture_is_lost(tmp_path):
    """Found are `from`, `import`, relative and inner imports; what follows from two arrows is left out."""
    for path, text in {
        "transact/__init__.py": '"""All of it."""\nfrom transact.high import top\n',
        "transact/low.py": '"""Lowest. Not this."""\n',
        "transact/middle/__init__.py": '"""Two files."""\n',
        "transact/middle/one.py": "import transact.low\nfrom . import two\n",
        "transact/middle/two.py": "",
        "transact/high/top.py": "def f():\n    from transact.middle.one import g\nfrom transact import low\n",
        "ui/page.py": "import transact as ta\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    imports = architecture.graph(tmp_path)
    assert imports["transact/high"] == {"transact/middle", "transact/low.py"}
    assert [*architecture.ordered(imports)] == [
        ("transact/low.py",), ("transact/middle",), ("transact/high",), ("transact",), ("ui/page.py",),
    ]  # fmt: skip
    picture = architecture.drawn(tmp_path)
    assert re.findall(r"(\w+) --> (\w+)", picture) == [
        ("transact_low_py", "transact_middle"), ("transact_middle", "transact_high"), ("transact_high", "transact"),
        ("transact", "ui_page_py"),
    ]  # fmt: skip
    assert "| 1 | `transact/low.py` | Lowest. |  |" in picture
    (tmp_path / "transact/low.py").write_text("from transact.high import top\n")
    assert ("transact/high", "transact/low.py", "transact/middle") in architecture.ordered(architecture.graph(tmp_path))


def test_the_benchmark_writes_its_tables_into_its_document(tmp_path, monkeypatch):
    document = tmp_path / "benchmarks.md"
    document.write_text(_read("docs/benchmarks.md"), encoding="utf-8")
    monkeypatch.setattr(quality, "DOCUMENT", document)
    quality.write_into_document("anew")
    before, _, rest = _read("docs/benchmarks.md").partition("<!-- quality -->")
    assert document.read_text(encoding="utf-8").startswith(f"{before}<!-- quality -->\n\nanew\n\n<!-- /quality -->")
    assert document.read_text(encoding="utf-8").endswith(rest.partition("<!-- /quality -->")[2])
    document.write_text("nothing")
    with pytest.raises(SystemExit, match=r"benchmarks.md has no lines"):
        quality.write_into_document("anew")
