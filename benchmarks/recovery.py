"""Iterative pruning with training in between: the paper's ablations, and how far a small model comes back.

    python -m benchmarks.recovery [--only goal,shots,samples,parts,processes] [--tokens 2400000] [--seeds 3]

On stories260K (development data), its rows "2 groups, 86 channels" and "4, 86", perplexity by that data's protocol.

- `goal`: one shot to 2 / 86, then distillation on the model's own text and 1,000 stories, with repair first and
  without; target: at most 6.0 within 10 minutes of training on 2 cores, 5.2 hoped for.
- `shots`: 8 shots beside one shot that is followed by as many tokens, by the paper's score, over seeds.
- `samples`: how many calibration samples score.
- `parts`: attention alone, MLP alone and both cut to as many parameters.
- `processes`: one process and two, the same global batch: losses and tokens per second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import transact as ta
from benchmarks.harness import median, publish, table

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
PARTS = ("goal", "shots", "samples", "parts", "processes")
ROWS = ((2, 86), (4, 86))
SEQ, MIN_TOKENS, BATCH, RATE = 256, 64, 8, 2e-3
GOAL_BATCH = 32
GOAL_TOKENS, OWN_SAMPLES = 7_000_000, 2000
COUNTS = (4, 16, 128)


def texts(name: str) -> list[str]:
    lines = (DATA / f"tinystories_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


class Ground:
    """The model and the texts that all parts work on."""

    def __init__(self):
        self.dense = ta.load(str(DATA / "stories260K"), dtype="float32")
        given = {"seq_len": SEQ, "min_tokens": MIN_TOKENS}
        tokenizer = self.dense.tokenizer
        self.calibration = ta.CalibrationSet.from_texts(texts("calibration"), tokenizer, name="calibration", **given)
        self.stories = ta.CalibrationSet.from_texts(
            texts("training"), tokenizer, num_samples=None, name="1,000 stories", **given
        )
        self.evaluation = ta.EvaluationSet.from_texts(texts("evaluation"), tokenizer, name="evaluation", **given)

    def recovered(
        self,
        target: ta.PruningTarget,
        settings: ta.RecoverySettings,
        *,
        training: ta.CalibrationSet | None = None,
        calibration: ta.CalibrationSet | None = None,
    ) -> tuple[ta.Recovered, float, float]:
        """The result, its perplexity, and seconds."""
        started = time.perf_counter()
        recovered = ta.recover(
            self.dense, calibration or self.calibration, target, settings, training=training or self.stories
        )
        seconds = time.perf_counter() - started
        return recovered, ta.perplexity(recovered.pruned, self.evaluation), seconds


def settings(shots: int, tokens: int, **others) -> ta.RecoverySettings:
    """A share of the tokens between the shots, the rest afterwards; one shot has all of them afterwards."""
    between = tokens // 2 if shots > 1 else 0
    given = {"batch_size": BATCH, "learning_rate": RATE, "shot_rate_rise": 1.0, "log_every": 20}
    return ta.RecoverySettings(shots=shots, shot_tokens=between, recovery_tokens=tokens - between, **given | others)


def goal(ground: Ground, tokens: int, seeds: int) -> tuple[str, dict]:
    own = ta.CalibrationSet.from_model(ground.dense, num_samples=OWN_SAMPLES, seq_len=SEQ, name="own text")
    both = ta.CalibrationSet.from_sequences([*own.rows(), *ground.stories.rows()], name="own text and 1,000 stories")
    rows = []
    for name, repair in (("none", {}), ("search and best", {"metric": "search", "compensation": "best"})):
        chosen = settings(1, GOAL_TOKENS, loss="distillation", batch_size=GOAL_BATCH, **repair)
        recovered, perplexity, seconds = ground.recovered(ta.PruningTarget(2, 86), chosen, training=both)
        before = ground.recovered(ta.PruningTarget(2, 86), settings(1, 0, **repair))[1]
        size = recovered.pruned.spec.num_parameters / ground.dense.spec.num_parameters
        rows.append({"repair": name, "before": before, "perplexity": perplexity, "seconds": seconds, "size": size})
    text = table(
        ["repair before training", "parameters kept", "perplexity before", "after", "seconds"],
        [
            [
                row["repair"],
                f"{row['size']:.3f}",
                f"{row['before']:.2f}",
                f"{row['perplexity']:.2f}",
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )
    return f"One shot to 2 / 86, then {GOAL_TOKENS / 1e6:g} M tokens of distillation\n\n{text}", {"rows": rows}


def shots(ground: Ground, tokens: int, seeds: int) -> tuple[str, dict]:
    rows = []
    for row in ROWS:
        for seed in range(seeds):
            found = [
                ground.recovered(ta.PruningTarget(*row), settings(count, tokens, seed=seed))[1] for count in (1, 8)
            ]
            rows.append({"row": row, "seed": seed, "one_shot": found[0], "eight_shots": found[1]})
    text = table(
        ["groups / channels", "seed", "one shot, then training", "8 shots", "8 shots better"],
        [
            [
                " / ".join(map(str, row["row"])),
                str(row["seed"]),
                f"{row['one_shot']:.3f}",
                f"{row['eight_shots']:.3f}",
                "yes" if row["eight_shots"] < row["one_shot"] else "no",
            ]
            for row in rows
        ],
    )
    return f"The same {tokens / 1e6:g} M tokens of training, the paper's score\n\n{text}", {"rows": rows}


def samples(ground: Ground, tokens: int, seeds: int) -> tuple[str, dict]:
    rows = []
    everything = list(ground.calibration.rows())
    for count in COUNTS:
        found = []
        for seed in range(seeds):
            start = seed * count % max(len(everything) - count, 1)
            few = ta.CalibrationSet.from_sequences(everything[start : start + count], name=f"{count} samples")
            chosen = settings(8, tokens, seed=seed)
            found.append(ground.recovered(ta.PruningTarget(2, 86), chosen, calibration=few)[1])
        rows.append({"samples": count, "perplexities": found})
    text = table(
        ["calibration samples", "perplexity, median", "lowest", "highest"],
        [[str(row["samples"]), *(f"{pick(row['perplexities']):.3f}" for pick in (median, min, max))] for row in rows],
    )
    return f"8 shots to 2 / 86, {tokens / 1e6:g} M tokens\n\n{text}", {"rows": rows}


def parts(ground: Ground, tokens: int, seeds: int) -> tuple[str, dict]:
    """Each cut takes as many parameters as attention can give at most without its last head group."""
    spec = ground.dense.spec
    scores = ta.ImportanceScores.random(spec)

    def parameters(target: ta.PruningTarget) -> int:
        return ta.make_plan(scores, spec, target).spec.num_parameters

    budget = parameters(ta.PruningTarget(1, 172))

    def channels_for(groups: int) -> int:
        return max(channels for channels in range(1, 173) if parameters(ta.PruningTarget(groups, channels)) <= budget)

    targets = {
        "attention alone": ta.PruningTarget(1, 172),
        "MLP alone": ta.PruningTarget(4, channels_for(4)),
        "both": ta.PruningTarget(3, channels_for(3)),
    }
    rows = []
    for name, target in targets.items():
        found = [ground.recovered(target, settings(8, tokens, seed=seed))[1] for seed in range(seeds)]
        rows.append(
            {
                "parts": name,
                "keep": [target.keep_head_groups, target.keep_channels],
                "parameters_kept": parameters(target) / spec.num_parameters,
                "perplexities": found,
            }
        )
    text = table(
        ["cut", "groups / channels kept", "parameters kept", "perplexity, median"],
        [
            [
                row["parts"],
                " / ".join(map(str, row["keep"])),
                f"{row['parameters_kept']:.3f}",
                f"{median(row['perplexities']):.3f}",
            ]
            for row in rows
        ],
    )
    return f"8 shots, {tokens / 1e6:g} M tokens\n\n{text}", {"rows": rows}


def processes(ground: Ground, tokens: int, seeds: int) -> tuple[str, dict]:
    """By the command line, as a user would; both processes share the cores that one has."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            launched = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m"]
            command = ["transact", "recover", "--model", str(DATA / "stories260K"), "--dtype", "float32"]
            command += ["--device", "cpu", "--calibration", str(DATA / "tinystories_calibration.jsonl")]
            command += ["--training", str(DATA / "tinystories_training.jsonl"), "--seq-len", str(SEQ)]
            command += ["--keep-head-groups", "2", "--keep-channels", "86", "--shots", "2"]
            command += ["--shot-tokens", str(tokens // 4), "--recovery-tokens", str(tokens // 4)]
            command += ["--batch-size", str(BATCH), "--learning-rate", str(RATE), "--json"]
            command += ["--output", str(Path(folder) / f"model-{count}")]
            threads = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
            done = subprocess.run(
                [sys.executable, *launched, *command], env={**os.environ, **threads}, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            points = json.loads(done.stdout[done.stdout.index("{") :])["points"]
            losses = [point["loss"] for point in points if point["loss"] is not None]
            speeds = [point["tokens_per_second"] for point in points if point["tokens_per_second"] is not None]
            rows.append({"processes": count, "losses": losses, "tokens_per_second": median(speeds)})
    apart = [abs(two / one - 1) for one, two in zip(*(row["losses"] for row in rows), strict=True)]
    text = table(
        ["processes", "tokens per second", "last loss", "losses apart, at most"],
        [
            [
                str(row["processes"]),
                f"{row['tokens_per_second']:,.0f}",
                f"{row['losses'][-1]:.4f}",
                "" if row["processes"] == 1 else f"{max(apart):.2%}",
            ]
            for row in rows
        ],
    )
    return f"The same global batch of {BATCH} sequences\n\n{text}", {"rows": rows, "apart": max(apart)}


WORK = {"goal": goal, "shots": shots, "samples": samples, "parts": parts, "processes": processes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="which parts (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=2_400_000, help="of each training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit("This needs the development data (../shared/data), which is not part of the project.")
    ground = Ground()
    dense = ta.perplexity(ground.dense, ground.evaluation)
    for name in given.only.split(","):
        text, found = WORK[name](ground, given.tokens, given.seeds)
        publish("recovery", f"Recovery, {name}; dense perplexity {dense:.3f}", text, {"dense": dense, name: found})


if __name__ == "__main__":
    main()
