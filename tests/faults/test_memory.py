"""Memory that is short when a model is loaded: refused before, or told when it runs out all the same."""

import os
import subprocess
import sys

import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import transact as ta
from tests.conftest import ROOT

# 64 MB of weights in one matrix
CONFIG = AutoConfig.for_model(
    "llama", vocab_size=8000, hidden_size=1024, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8,
    tie_word_embeddings=True,
)  # fmt: skip

# RLIMIT_AS is on the address space, which a lie about the free memory does not reach
SCRIPT = """
import resource, sys
import psutil, torch
from ui.work import scoring
from ui.work.jobs import Jobs
from ui.work.registry import Registry
from ui.state.session import BUNDLED, ModelKey
import transact as ta

jobs, registry = Jobs(), Registry()
load = lambda key: jobs.finish("me", "Loading", lambda watch: scoring.load(registry, key, watch)).spec.num_parameters
large = ModelKey(sys.argv[1], dtype="float64")  # so that the files cannot just be mapped
load(BUNDLED)
used = psutil.Process().memory_info().vms
for spare in (80e6, 40e6):
    resource.setrlimit(resource.RLIMIT_AS, (int(used + spare), resource.RLIM_INFINITY))
    try:
        print(load(large))
    except ta.TransactError as error:
        print(type(error).__name__, error)
    print(load(BUNDLED))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(load(large))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG)
    model.to_empty(device="cpu").to(torch.float16)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)  # what memory happened to hold would untie the two matrices
    model.save_pretrained(folder)
    return folder


@pytest.mark.long
def test_memory_that_runs_out_while_weights_are_read(large):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(large)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    *tries, whole = run.stdout.splitlines()
    bundled, number = str(ta.load("bundled").spec.num_parameters), str(ta.ModelSpec.from_config(CONFIG).num_parameters)
    assert whole == number
    for said, other in zip(tries[::2], tries[1::2], strict=True):
        assert said.startswith("NotEnoughMemory Memory ran out") and "smaller model" in said
        assert other == bundled


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc that lies: `say(kilobytes)` is what it says is available."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))

    def say(kilobytes: int) -> None:
        (tmp_path / "meminfo").write_text(
            f"MemTotal: 99999999 kB\nMemFree: {kilobytes} kB\nMemAvailable: {kilobytes} kB\n"
            "Buffers: 0 kB\nCached: 0 kB\nActive: 0 kB\nInactive: 0 kB\n"
        )

    return say


def test_a_machine_that_says_it_has_little(proc, large):
    proc(300_000)
    assert not ta.preflight(str(large)).fits
    with pytest.raises(ta.NotEnoughMemory, match=r"needs about 0\.\d GB in float32 and 0\.3 GB are free"):
        ta.load(str(large))
    proc(9_000_000)
    assert ta.load(str(large)).spec == ta.ModelSpec.from_config(CONFIG)
