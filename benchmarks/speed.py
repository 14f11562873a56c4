"""How fast: observing beside a plain forward pass, planning, and the pruned model beside its ideal.

    python -m benchmarks.speed [--rounds 9]

- `observe` against the decoder's forward pass without the output head and without hooks; target: at most 1.05
  times. `observe` reads batches that stay in the processor's cache, which the forward pass gains by too, so it is
  compared both with batches of 8 samples and with the very same batches. On the bundled model and on a random
  Llama of 135 M parameters.
- `make_plan` at 32 layers x 32 heads x 11,008 channels; target: under 20 ms.
- The pruned model's prefill and decode against the dense one, beside what the FLOPs would give.
"""

import argparse
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import transact as ta
from benchmarks.harness import alternate, median, publish, ratio, table
from transact.observing.observe import TOKENS_IN_CACHE


def llama_135m(dtype: torch.dtype) -> ta.LoadedModel:
    """Random weights in the shape of a 135 M-parameter Llama."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return ta.LoadedModel.from_model(AutoModelForCausalLM.from_config(config).to(dtype), source="llama-135m")


def random_text(loaded: ta.LoadedModel, samples: int, seq: int) -> ta.CalibrationSet:
    generator = torch.Generator().manual_seed(0)
    return ta.CalibrationSet.from_token_ids(
        torch.randint(loaded.spec.vocab_size, (samples, seq), generator=generator), name="random ids"
    )


@torch.inference_mode()
def plain_forward(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, max_tokens: int | None = None) -> None:
    for batch in calibration.batches(batch_size=8, max_tokens=max_tokens):
        loaded.model.base_model(input_ids=batch.input_ids, use_cache=False)


def observing(name: str, loaded: ta.LoadedModel, samples: int, seq: int, rounds: int) -> dict:
    calibration = random_text(loaded, samples, seq)
    taken = alternate(
        {
            "forward": lambda: plain_forward(loaded, calibration),
            "same_batches": lambda: plain_forward(loaded, calibration, TOKENS_IN_CACHE),
            "observe": lambda: ta.observe(loaded, calibration),
        },
        rounds=rounds,
    )
    return {
        "model": name,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "tokens": calibration.num_tokens,
        "forward_seconds": median(taken["forward"]),
        "observe_seconds": median(taken["observe"]),
        "same_batches_seconds": median(taken["same_batches"]),
        "ratio": ratio(taken, "observe", "forward"),
        "ratio_same_batches": ratio(taken, "observe", "same_batches"),
    }


def planning() -> dict:
    config = AutoConfig.for_model(
        "llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    spec = ta.ModelSpec.from_config(config)
    scores = ta.ImportanceScores.random(spec)
    times = []
    for step in range(41):
        target = ta.PruningTarget.from_sparsity(spec, attention=step / 50, mlp=step / 50)
        started = time.perf_counter()
        ta.make_plan(scores, spec, target)
        times.append(time.perf_counter() - started)
    return {"plan_milliseconds_median": median(times) * 1e3, "plan_milliseconds_largest": max(times) * 1e3}


def speeding_up(name: str, dense: ta.LoadedModel) -> list[dict]:
    rows = []
    for attention, mlp in ((0.25, 0.5), (0.5, 0.75)):
        target = ta.PruningTarget.from_sparsity(dense.spec, attention=attention, mlp=mlp)
        pruned = ta.prune(dense, ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, target))
        slow, fast = ta.measure_speed((dense, pruned), repeats=9)
        rows.append(
            {
                "model": name,
                "dtype": str(dense.dtype).removeprefix("torch."),
                "attention_sparsity": attention,
                "mlp_sparsity": mlp,
                "parameters_kept": pruned.spec.num_parameters / dense.spec.num_parameters,
                "ideal_prefill": slow.prefill_flops_per_token / fast.prefill_flops_per_token,
                "ideal_decode": slow.decode_flops_per_token / fast.decode_flops_per_token,
                "prefill": fast.prefill / slow.prefill,
                "decode": fast.decode / slow.decode,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each pair that is timed in alternation")
    rounds = parser.parse_args().rounds
    bundled = ta.load("bundled")
    large, half = llama_135m(torch.float32), llama_135m(torch.bfloat16)
    observed = [
        observing("bundled", bundled, 32, 256, rounds),
        observing("llama-135m", large, 8, 512, rounds),
        observing("llama-135m", half, 8, 512, rounds),
    ]
    planned = planning()
    faster = speeding_up("bundled", bundled) + speeding_up("llama-135m", large) + speeding_up("llama-135m", half)
    text = "\n\n".join(
        (
            table(
                ["model", "dtype", "tokens", "forward, 8 samples", "forward, same batches", "observe", "ratios"],
                [
                    [
                        row["model"],
                        row["dtype"],
                        f"{row['tokens']:,}",
                        f"{row['forward_seconds']:.2f} s",
                        f"{row['same_batches_seconds']:.2f} s",
                        f"{row['observe_seconds']:.2f} s",
                        f"{row['ratio']:.3f}, {row['ratio_same_batches']:.3f}",
                    ]
                    for row in observed
                ],
            ),
            f"make_plan at 32 x 32 x 11,008: median {planned['plan_milliseconds_median']:.1f} ms, largest "
            f"{planned['plan_milliseconds_largest']:.1f} ms",
            table(
                [
                    "model",
                    "dtype",
                    "attention / MLP sparsity",
                    "parameters kept",
                    "prefill (ideal)",
                    "decode (ideal)",
                ],
                [
                    [
                        row["model"],
                        row["dtype"],
                        f"{row['attention_sparsity']:.0%} / {row['mlp_sparsity']:.0%}",
                        f"{row['parameters_kept']:.0%}",
                        *(f"{row[kind]:.2f} x ({row[f'ideal_{kind}']:.2f} x)" for kind in ("prefill", "decode")),
                    ]
                    for row in faster
                ],
            ),
        )
    )
    publish("speed", "Speed", text, {"observe": observed, "plan": planned, "speed_up": faster})


if __name__ == "__main__":
    main()
