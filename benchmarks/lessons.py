"""The facts that the page's lessons reveal, measured on the bundled model and written where the page reads them.

    python -m benchmarks.lessons [--only savings,heads,texts,channels,repairs,sizes] [--tokens 100000]

Writes `assets/guide/lessons.json`. A lesson must answer within a second, so what takes longer is measured here once.
All of it is what the page itself gives: scored on the bundled sample "mixed" (128 sequences of up to 256 tokens,
seed 0), perplexity on the held-out text of that kind in windows of up to 512 tokens, 60 items a task.

- `savings`: parameters and KV cache where heads or channels go.
- `heads`: perplexity without one head, for every head, on the first sequences of that text.
- `texts`: perplexity on each kind of text where each kind of text has chosen the channels that go.
- `channels`: perplexity and tasks as more and more channels go, and the perplexity of a choice at random.
- `repairs`: one cut, repaired in every way, and trained back on `--tokens` tokens; what the models write.
- `sizes`: perplexity over size, chosen at random, by score, and by score with the strongest repair.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import transact as ta
from transact.assets import ASSETS, SAMPLES
from transact.planning.search import METRIC as SEARCH

FILE = ASSETS / "guide" / "lessons.json"
WEIGHTS = ASSETS / "model" / "model.safetensors"
SAMPLING = {"num_samples": 128, "seq_len": 256, "seed": 0}
WINDOW, ITEMS, WRITTEN = 512, 60, 40
SHARES = tuple(step / 10 for step in range(10))
"""Of the channels that go."""
CUT = (0.25, 0.5)
"""Attention and MLP sparsity of the cut that is repaired."""
SIZES = ((0.0, 0.3), (0.25, 0.5), (0.5, 0.7))
PROMPT = "Once upon a time, there was a little"
TRAINING = {
    "shots": 1, "learning_rate": 1e-3, "batch_size": 8, "loss": "distillation", "metric": SEARCH,
    "compensation": "best",
}  # fmt: skip
OWN_SAMPLES = 256
FEW = 24
"""Sequences that a single head's absence is measured on: there are many heads, and they are only compared."""
_DIGITS = 4


@dataclass(frozen=True)
class Ground:
    """The bundled model, scored on a bit of everything, and what it is measured on."""

    loaded: ta.LoadedModel
    calibration: ta.CalibrationSet
    statistics: ta.ActivationStatistics
    scores: ta.ImportanceScores
    evaluation: ta.EvaluationSet

    @classmethod
    def of(cls, kind: str) -> "Ground":
        loaded = ta.load(ta.BUNDLED)
        calibration = ta.CalibrationSet.from_texts(texts(kind), loaded.tokenizer, windows="auto", name=kind, **SAMPLING)
        statistics = ta.observe(loaded, calibration, gram=True)
        return cls(loaded, calibration, statistics, ta.score(loaded, statistics), evaluation(loaded, kind))

    def plan(self, attention: float, mlp: float, *, scores: ta.ImportanceScores | None = None) -> ta.PruningPlan:
        target = ta.PruningTarget.from_sparsity(self.loaded.spec, attention=attention, mlp=mlp)
        return ta.make_plan(scores or self.scores, self.loaded.spec, target)

    def random(self, attention: float, mlp: float) -> ta.PruningPlan:
        return self.plan(attention, mlp, scores=ta.ImportanceScores.random(self.loaded.spec, seed=0))

    def perplexity(self, plan: ta.PruningPlan | None = None) -> float:
        """Of the model as it is, or behind the plan's mask."""
        if plan is None:
            return rounded(ta.perplexity(self.loaded, self.evaluation))
        with ta.masked(self.loaded, plan):
            return rounded(ta.perplexity(self.loaded, self.evaluation))

    def tasks(self, plan: ta.PruningPlan, *, answers: bool = False) -> list[ta.ProbeResult]:
        """Every task behind the plan's mask."""
        with ta.masked(self.loaded, plan):
            return [ta.run_probe(self.loaded, probe, limit=ITEMS, answers=answers) for probe in ta.load_probes()]


def texts(name: str) -> list[str]:
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def evaluation(loaded: ta.LoadedModel, kind: str) -> ta.EvaluationSet:
    return ta.EvaluationSet.from_texts(
        texts(f"evaluation_{kind}"), loaded.tokenizer, num_samples=None, windows="auto", seq_len=WINDOW, name=kind
    )


def rounded(value: float) -> float:
    """Four significant digits: the file holds what is shown, not what threads and versions disagree about."""
    return float(f"{value:.{_DIGITS}g}")


def identity() -> str:
    """Digest of the weights that the facts are of."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def model(ground: Ground, tokens: int) -> dict:
    """Whose facts these are, and how many parameters stand where."""
    spec, layers = ground.loaded.spec, ground.loaded.decoder_layers
    attention = sum(weight.numel() for layer in layers for weight in layer.self_attn.parameters())
    mlp = sum(weight.numel() for layer in layers for weight in layer.mlp.parameters())
    return {
        "weights": identity(),
        "parameters": {"all": spec.num_parameters, "attention": attention, "mlp": mlp},
        "perplexity": ground.perplexity(),
        "tokens": ground.evaluation.num_tokens,
        "items": ITEMS,
        "prompt": PROMPT,
        "writes": written(ground.loaded),
    }


def written(loaded: ta.LoadedModel) -> str:
    return ta.generate(loaded, PROMPT, max_new_tokens=WRITTEN)


def savings(ground: Ground, tokens: int) -> list[dict]:
    """What goes with a quarter of the heads, and with a quarter of the channels."""
    rows = []
    for attention, mlp in ((0.25, 0.0), (0.0, 0.25)):
        spec = ground.plan(attention, mlp).spec
        rows.append(
            {
                "removed": [attention, mlp],
                "parameters": spec.num_parameters / ground.loaded.spec.num_parameters,
                "kv": spec.kv_bytes_per_token(2) / ground.loaded.spec.kv_bytes_per_token(2),
            }
        )
    return rows


def heads(ground: Ground, tokens: int) -> dict:
    """Perplexity as it is, and without one head: [layer][head]."""
    few = replace(ground, evaluation=ground.evaluation.first(FEW))
    found = []
    for layer, shape in enumerate(ground.loaded.spec.layers):
        found.append([])
        for head in range(shape.num_attention_heads):
            with ta.knocked_out(ground.loaded, layer, heads=[head]):
                found[-1].append(few.perplexity())
    return {"sequences": FEW, "dense": few.perplexity(), "without": found}


def by_text(ground: Ground, tokens: int) -> dict:
    """Perplexity on the second kind of text where half the channels go, chosen on the first: {first: {second: …}}."""
    kinds = [probe.kind for probe in ta.load_probes()]
    grounds = {kind: Ground.of(kind) for kind in kinds}
    plans = {kind: grounds[kind].plan(0.0, CUT[1]) for kind in kinds}
    kept = {kind: {(at, unit) for at, layer in enumerate(plan.layers) for unit in layer.kept_channels}
            for kind, plan in plans.items()}  # fmt: skip
    return {
        "removed": CUT[1],
        "dense": {kind: grounds[kind].perplexity() for kind in kinds},
        "chosen": {one: {other: grounds[other].perplexity(plans[one]) for other in kinds} for one in kinds},
        "shared": {one: {other: rounded(len(kept[one] & kept[other]) / len(kept[one])) for other in kinds}
                   for one in kinds},
    }  # fmt: skip


def channels(ground: Ground, tokens: int) -> list[dict]:
    """One point a share of channels: perplexity, the same chosen at random, tasks, and the first wrong answers."""
    points = []
    for share in SHARES:
        plan = ground.plan(0.0, share)
        tasks = ground.tasks(plan, answers=share <= CUT[1])
        points.append(
            {
                "removed": share,
                "parameters": plan.spec.num_parameters,
                "perplexity": ground.perplexity(plan),
                "random": ground.perplexity(ground.random(0.0, share)),
                "tasks": {task.kind: task.correct for task in tasks},
                "wrong": {task.kind: first_wrong(task) for task in tasks if task.answers and task.correct < task.total},
            }
        )
    return points


def first_wrong(task: ta.ProbeResult) -> dict:
    answer = next(answer for answer in task.answers if not answer.is_right)
    return {"prompt": answer.prompt.rsplit("\n", 1)[-1], "right": answer.right, "given": answer.given}


def repairs(ground: Ground, tokens: int) -> list[dict]:
    """One cut, repaired in every way that the model can hold, and trained back at last."""
    loaded, statistics = ground.loaded, ground.statistics
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=CUT[0], mlp=CUT[1])
    plan = ground.plan(*CUT)
    rows = []
    for repair in ("none", "least_squares"):
        rows.append(repaired(ground, repair, ta.prune(loaded, plan, compensation=repair, statistics=statistics)))
    found = ta.search_plan(loaded, statistics, target)
    rows.append(repaired(ground, "best", ta.prune(loaded, found, compensation="best", statistics=statistics)))
    own = ta.CalibrationSet.from_model(loaded, num_samples=OWN_SAMPLES, seq_len=SAMPLING["seq_len"], name="own text")
    settings = ta.RecoverySettings(recovery_tokens=tokens, **TRAINING)
    trained = ta.recover(loaded, ground.calibration, target, settings, training=own).pruned
    rows.append({**repaired(ground, "training", trained), "tokens": tokens})
    return rows


def repaired(ground: Ground, name: str, pruned: ta.LoadedModel) -> dict:
    tasks = {probe.kind: ta.run_probe(pruned, probe, limit=ITEMS).correct for probe in ta.load_probes()}
    return {
        "repair": name,
        "removed": list(CUT),
        "parameters": pruned.spec.num_parameters,
        "perplexity": rounded(ta.perplexity(pruned, ground.evaluation)),
        "tasks": tasks,
        "writes": written(pruned),
    }


def sizes(ground: Ground, tokens: int) -> list[dict]:
    """One point a pair of sparsities: parameters, and perplexity by three ways to choose."""
    points = []
    for attention, mlp in SIZES:
        target = ta.PruningTarget.from_sparsity(ground.loaded.spec, attention=attention, mlp=mlp)
        found = ta.search_plan(ground.loaded, ground.statistics, target)
        best = ta.prune(ground.loaded, found, compensation="best", statistics=ground.statistics)
        points.append(
            {
                "removed": [attention, mlp],
                "parameters": best.spec.num_parameters,
                "random": ground.perplexity(ground.random(attention, mlp)),
                "score": ground.perplexity(ground.plan(attention, mlp)),
                "best": rounded(ta.perplexity(best, ground.evaluation)),
            }
        )
    return points


PARTS: dict[str, Callable[[Ground, int], object]] = {
    "model": model, "savings": savings, "heads": heads, "texts": by_text, "channels": channels, "repairs": repairs,
    "sizes": sizes,
}  # fmt: skip


def keep(name: str, value: object) -> None:
    """Write a part into the file, beside the others where they are the same model's."""
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if name == "model" and before.get("model", {}).get("weights") != identity():
        before = {}
    FILE.write_text(json.dumps({**before, name: value}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="which parts; the others stay (default: all)")
    parser.add_argument("--tokens", type=int, default=100_000, help="to train back on (default: %(default)s)")
    given = parser.parse_args()
    ground = Ground.of("mixed")
    for name in dict.fromkeys(["model", *given.only.split(",")]):
        started = time.perf_counter()
        keep(name, PARTS[name](ground, given.tokens))
        sys.stdout.write(f"{name}: {time.perf_counter() - started:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
