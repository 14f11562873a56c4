"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the project: what they promise comes of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path) -> Path:
    """What a recipe changes, to be changed."""
    for name in ("transact", "ui", "assets"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def recipe(title: str) -> list[str]:
    """The code blocks under a heading of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {title}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"```py\n(.*?)```", section, re.DOTALL)


def insert(file: Path, before: str, lines: str) -> None:
    """Put lines before the first place that reads so."""
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, lines + before, 1), encoding="utf-8")


PRELUDE = """
import contextlib, io
from pathlib import Path

import torch
import transact as ta
from transact.cli import main
from ui.application import build

loaded = ta.load("bundled")
text = ta.CalibrationSet.from_sequences([list(range(3, 40)), list(range(5, 25))], name="numbers")
statistics = ta.observe(loaded, text)
target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)

def menu(elem_id):
    return next(each for each in build().blocks.values() if getattr(each, "elem_id", "") == elem_id).choices

def help_of(command):
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([command, "--help"])
    return printed.getvalue()
"""
"""What the scripts that `run` runs begin with: a model and its statistics, the page's menus, a command's help."""


def run(project: Path, script: str) -> str:
    """What a script prints in that project."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_a_metric(project):
    function, entry = recipe("A metric")
    file = project / "transact/scoring/metrics.py"
    insert(file, "METRICS: dict", f"{function}\n\n")
    insert(file, "        Metric(\n", f"{entry.rstrip()},\n")
    said = run(
        project,
        """
scores = ta.score(loaded, statistics, metric="mean_size")
expected = (statistics.mlp[1].square_sums / text.num_tokens).sqrt()
assert torch.equal(scores.mlp_channels[1], expected)
assert torch.allclose(scores.heads[1], (statistics.attention[1].square_sums / text.num_tokens).sqrt()
                      .unflatten(0, (loaded.spec.layers[1].num_attention_heads, -1)).sum(1))
plan = ta.make_plan(scores, loaded.spec, target)
assert plan.metric == "mean_size"
print([value for label, value in menu("metric-select") if "Root mean square" in label])
print("mean_size" in help_of("score"))
""",
    )
    assert said.splitlines() == ["['mean_size']", "True"]


@pytest.mark.long
def test_a_repair(project):
    file, entry = recipe("A repair")
    (project / "transact/repair/rescale.py").write_text(file, encoding="utf-8")
    table = project / "transact/repair/repairs.py"
    insert(table, "from transact.repair.refit", "from transact.repair.rescale import RescaledRefit\n")
    insert(table, "        Repair(\n", f"{entry.rstrip()},\n")
    said = run(
        project,
        """
plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target)
pruned = ta.prune(loaded, plan, compensation="rescale", statistics=statistics)
plain = ta.prune(loaded, plan)
for site, role in (("attention", "self_attn.o_proj"), ("mlp", "mlp.down_proj")):
    dense, new, left = (each.decoder_layers[2].get_submodule(role).weight.double() for each in (loaded, pruned, plain))
    sums = getattr(statistics, site)[2].square_sums
    kept = plan.layers[2].kept_channels
    if site == "attention":
        width = loaded.spec.head_dim
        kept = [head * width + place for head in plan.layers[2].kept_heads for place in range(width)]
    before, after = (weight.square().sum(0) @ part for weight, part in ((dense, sums), (new, sums[list(kept)])))
    assert torch.allclose(before, after, rtol=1e-3), site  # files of bfloat16 round
    assert torch.allclose(new / left, (new / left).mean(), rtol=2**-7), site

ta.save(pruned, "in-memory", prove=False)
ta.stream_prune("bundled", plan, "streamed", compensation="rescale", statistics=statistics)
first, second = (ta.load(str(Path(name).resolve())).model.state_dict() for name in ("in-memory", "streamed"))
assert all(torch.equal(first[name], second[name]) for name in first)
ta.RecoverySettings(compensation="rescale")
print([value for label, value in menu("repair-select") if label == "Scale what is left"])
print("rescale" in help_of("prune"))
""",
    )
    assert said.splitlines() == ["['rescale']", "True"]
