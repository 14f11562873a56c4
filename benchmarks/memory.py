"""Peak memory of each kind of work beside its estimate, each in a process of its own.

`python -m benchmarks.memory` makes a random model whose vocabulary is large and whose rest is small (hidden 64,
262,144 words), so that a matrix of whole logits would stand out: half a gigabyte for 512 positions. `--model FOLDER`
takes a real one. *Taken* is the peak of the process during the work, less what it held once the model was loaded (what
Python and torch map into memory at their first computation counts, some 30 MB).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import transact as ta
import transact.recovery.trainer  # noqa: F401  (imported late by `recover`: the import is no part of its work)
from benchmarks.harness import forget_peak, publish, status_bytes, table
from transact.observing.gradients import pass_bytes
from transact.runtime.memory import return_freed
from transact.text.tokens import TokenSet

RANDOM = "random"
VOCABULARY, HIDDEN = 262_144, 64
SAMPLES, SEQ = 4, 512
Work = Callable[[ta.LoadedModel, ta.CalibrationSet, ta.EvaluationSet], int]
"""Does the work; returns what it was estimated to take beside the model."""


def random_model() -> ta.LoadedModel:
    """Two small layers and a large vocabulary, float32, tied: 67 MB, nearly all of them embeddings."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=172, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=4, head_dim=8, max_position_embeddings=SEQ, tie_word_embeddings=True,
    )  # fmt: skip
    return ta.LoadedModel.from_model(AutoModelForCausalLM.from_config(config), source=RANDOM)


def _target(loaded: ta.LoadedModel) -> ta.PruningTarget:
    return ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.25)


def _random_plan(loaded: ta.LoadedModel) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, _target(loaded))


def perplexity(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    ta.perplexity(loaded, evaluation)
    return ta.evaluation_bytes(loaded.spec, evaluation)


def evaluate(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    pruned = ta.prune(loaded, _random_plan(loaded))
    ta.evaluate(pruned, evaluation, reference=loaded)
    return pruned.held_bytes + ta.evaluation_bytes(pruned.spec, evaluation, reference=loaded.spec)


def search(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    statistics = ta.observe(loaded, calibration)
    ta.search_plan(loaded, statistics, _target(loaded))
    return ta.search_bytes(loaded.spec, _target(loaded), calibration)


def best(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    statistics = ta.observe(loaded, calibration)
    plan = _random_plan(loaded)
    ta.prune(loaded, plan, compensation="best", statistics=statistics)
    return ta.best_bytes(plan, calibration)


def taylor(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    ta.observe(loaded, calibration, taylor=True)
    return pass_bytes(loaded.spec, calibration, batch_size=8)[0]


def recover(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet) -> int:
    settings = ta.RecoverySettings(
        shots=1, shot_tokens=0, recovery_tokens=calibration.num_tokens, batch_size=calibration.num_samples,
        micro_batch_size=1, loss="distillation", learning_rate=1e-4, warmup=0.0,
    )  # fmt: skip
    ta.recover(loaded, calibration, _target(loaded), settings)
    return ta.recovery_cost(loaded.spec, _target(loaded), settings, seq_len=calibration.input_ids.shape[1]).bytes


WORKS: dict[str, Work] = {
    "perplexity": perplexity,
    "evaluate": evaluate,
    "search_plan": search,
    "prune best": best,
    "taylor": taylor,
    "recover": recover,
}


def measured(name: str, model: str, samples: int, seq: int) -> dict:
    """Run one of the works in this process."""
    before = status_bytes("VmRSS")
    loaded = random_model() if model == RANDOM else ta.load(model, dtype="float32")
    made = {kind: _tokens(kind, loaded, samples, seq) for kind in (ta.CalibrationSet, ta.EvaluationSet)}
    return_freed()
    forget_peak()
    held = status_bytes("VmRSS")
    estimate = WORKS[name](loaded, made[ta.CalibrationSet], made[ta.EvaluationSet])
    peak = status_bytes("VmHWM")
    return {
        "work": name,
        "weights_bytes": loaded.held_bytes,
        "peak_bytes": peak - before,
        "estimate_bytes": estimate,
        "taken_bytes": peak - held,
    }


def _tokens(kind: type[TokenSet], loaded: ta.LoadedModel, samples: int, seq: int) -> TokenSet:
    draws = torch.Generator().manual_seed(1)
    return kind.from_token_ids(torch.randint(3, loaded.spec.vocab_size, (samples, seq), generator=draws), name="random")


def in_its_own_process(name: str, model: str = RANDOM, samples: int = SAMPLES, seq: int = SEQ) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", "--do", name, "--model", model]
    command += ["--samples", str(samples), "--seq", str(seq)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=RANDOM, help="a folder, a hub id, or 'random' (the default)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="sequences of random token ids")
    parser.add_argument("--seq", type=int, default=SEQ, help="tokens of each")
    parser.add_argument("--work", nargs="*", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--do", choices=list(WORKS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        sys.stdout.write(json.dumps(measured(given.do, given.model, given.samples, given.seq)) + "\n")
        return
    rows = [in_its_own_process(name, given.model, given.samples, given.seq) for name in given.work]
    names = ("weights_bytes", "estimate_bytes", "taken_bytes", "peak_bytes")
    cells = [[row["work"], *(f"{row[name] / 1e6:,.0f}" for name in names)] for row in rows]
    title = f"Peak memory in MB, {given.model}, {given.samples} sequences of {given.seq} tokens"
    publish("memory", title, table(["work", "weights", "estimate", "taken", "peak"], cells), {given.model: rows})


if __name__ == "__main__":
    main()
