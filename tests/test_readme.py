"""What the README promises: its Python example runs as it stands, and its header is one that Spaces take."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for name in ("assets", "transact"):
        (tmp_path / name).symlink_to(ROOT / name)
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


def test_pictures_and_links_lead_somewhere():
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target
