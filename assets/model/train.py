"""Train the bundled model from nothing: a small Llama with grouped-query attention, on the text of `corpus.py`.

    python assets/model/train.py --minutes 85

The learning rate follows the clock: warm-up, a constant stretch, then a linear decay that ends with the minutes given,
so a slow machine makes a model that saw less text, never one that was cut off half-cooled. An interrupted training
goes on from its last checkpoint when the same command is given again, with the time already used. On a GPU, where
there is one, the same command applies.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import corpus
import packing
import torch
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger("train")

ROWS_PER_STEP = 4  # 2,048 tokens: at this size the number of steps counts, not how exact each is
WARM_UP_STEPS = 40
DECAY_FRACTION = 0.35  # of the time
MUON_RATE = 1.5e-3  # hidden matrices, on the scale of AdamW (adjust_lr_fn="match_rms_adamw")
ADAMW_RATE = 1.5e-3  # embedding and norms
WEIGHT_DECAY = 0.05
LOG_EVERY = 50  # steps
SAVE_EVERY = 120.0  # seconds
LOSS_NAMES = ["loss", *(f"loss_{kind}" for kind in corpus.KINDS)]

Rates = list[tuple[torch.optim.Optimizer, float]]  # each optimizer with its peak learning rate


@dataclass(frozen=True)
class Position:
    """Where a training stands: steps and tokens done, seconds used, the chunk being read and the rows read of it."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    chunk: int = 0
    row: int = 0


def model_config() -> LlamaConfig:
    """2.7 million parameters: 6 layers, 8 query heads on 4 key/value heads of 24, 512 channels."""
    return LlamaConfig(
        vocab_size=packing.VOCAB_SIZE,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=24,
        intermediate_size=512,
        max_position_embeddings=packing.CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=packing.BOS_ID,
        eos_token_id=packing.EOS_ID,
        pad_token_id=packing.EOS_ID,
        initializer_range=0.03,
    )


def optimizers(model: LlamaForCausalLM) -> Rates:
    """Muon for the matrices between embedding and output, AdamW for the rest; each with its peak learning rate."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    hidden_ids = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in hidden_ids]
    return [
        (torch.optim.Muon(hidden, lr=MUON_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"), MUON_RATE),
        (torch.optim.AdamW(rest, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0), ADAMW_RATE),
    ]


def rate_factor(step: int, elapsed_fraction: float) -> float:
    """The learning rate as a fraction of its peak."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm_up * min(1.0, max(0.0, 1.0 - elapsed_fraction) / DECAY_FRACTION)


def losses(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each next token, [row, seq]."""
    # [row, seq, vocab] -> [row · seq, vocab]
    flat = F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    return flat.view(rows.shape[0], -1)


class LossMeter:
    """The mean loss since the last reading: weighted over all tokens, then over predictable tokens of each kind."""

    def __init__(self) -> None:
        self.total = torch.zeros(len(LOSS_NAMES))
        self.count = torch.zeros(len(LOSS_NAMES))

    def add(self, token_losses: torch.Tensor, weights: torch.Tensor, kinds: torch.Tensor) -> None:
        self.total[0] += (token_losses * weights).sum()
        self.count[0] += weights.sum()
        predictable = weights == 1.0
        places = 1 + kinds[predictable]
        self.total.index_add_(0, places, token_losses[predictable])
        self.count.index_add_(0, places, torch.ones(len(places)))

    def read(self) -> list[float]:
        means = (self.total / self.count.clamp(min=1)).tolist()
        self.total.zero_()
        self.count.zero_()
        return means


def save_checkpoint(file: Path, model: LlamaForCausalLM, states: list[dict], position: Position) -> None:
    """Everything that going on needs, written whole or not at all."""
    partial = file.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizers": states, "position": vars(position)}, partial)
    partial.replace(file)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A stock bfloat16 checkpoint with its tokenizer, as many embeddings as that has entries."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.resize_token_embeddings(len(tokenizer))  # byte-pair merging may end before VOCAB_SIZE; no rows for nothing
    half.config.dtype = torch.bfloat16
    half.generation_config = GenerationConfig(
        bos_token_id=packing.BOS_ID, eos_token_id=packing.EOS_ID, pad_token_id=packing.EOS_ID
    )
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version of transformers knows
    for loading_detail in ("is_local", "local_files_only", "backend"):
        settings.pop(loading_detail, None)
    settings_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def batches(tokenizer_file: Path, chunk: int, row: int) -> Iterator[tuple[packing.Rows, int, int]]:
    """The `packing.Rows` of one step as tensors, with the chunk and row at which the next step begins.

    Another process writes the following chunk meanwhile.
    """
    with ProcessPoolExecutor(1) as pool:
        following = pool.submit(packing.training_chunk, tokenizer_file, chunk)
        while True:
            data = packing.Rows(*map(torch.from_numpy, following.result()))
            following = pool.submit(packing.training_chunk, tokenizer_file, chunk + 1)
            while row + ROWS_PER_STEP <= len(data.ids):
                start, row = row, row + ROWS_PER_STEP
                yield packing.Rows(*(part[start:row] for part in data)), chunk, row
            chunk, row = chunk + 1, 0


def same_document(documents: torch.Tensor) -> torch.Tensor:
    """Which earlier tokens each token sees: those of its own document; [row, seq] -> bool [row, 1, seq, seq]."""
    return (documents[:, :, None] == documents[:, None, :]).tril()[:, None]


def computes_half(device: torch.device) -> bool:
    """Whether bfloat16 is the fast way: on a GPU, and on processors with instructions for it (1.4 times there)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cuda" or any(capabilities.get(f"{unit}_bf16") for unit in ("avx512", "amx"))


def training_step(model: LlamaForCausalLM, rates: Rates, batch: packing.Rows, factor: float) -> torch.Tensor:
    """One step of all optimizers at `factor` of their rates; the loss of each token before it, [row, seq]."""
    device = next(model.parameters()).device
    rows, weights = batch.ids.to(device), batch.weights[:, 1:].to(device)
    seen = same_document(batch.documents[:, :-1].to(device))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_half(device)):
        logits = model(input_ids=rows[:, :-1], attention_mask=seen, use_cache=False).logits
    token_losses = losses(logits, rows)
    ((token_losses * weights).sum() / weights.sum()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, peak in rates:
        optimizer.param_groups[0]["lr"] = peak * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return token_losses.detach().cpu()


def train(model: LlamaForCausalLM, tokenizer_file: Path, *, minutes: float, work: Path, log_file: Path) -> None:
    """Train until the minutes are used; go on from `work/checkpoint.pt` when it is there."""
    rates = optimizers(model)
    checkpoint = work / "checkpoint.pt"
    position = Position()
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=next(model.parameters()).device, weights_only=True)
        model.load_state_dict(saved["model"])
        for (optimizer, _), state in zip(rates, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        position = Position(**saved["position"])
        log.info("going on from step %d, %.1f minutes used", position.step, position.seconds / 60)
    started = time.monotonic() - position.seconds
    last_saved = position.seconds
    new_log = position.step == 0 or not log_file.exists()
    meter = LossMeter()
    with log_file.open("w" if new_log else "a", newline="") as stream:
        writer = csv.writer(stream)
        if new_log:
            writer.writerow(["step", "tokens", "seconds", *LOSS_NAMES, "rate"])
        for batch, chunk, row in batches(tokenizer_file, position.chunk, position.row):
            factor = rate_factor(position.step, position.seconds / (minutes * 60))
            token_losses = training_step(model, rates, batch, factor)
            meter.add(token_losses, batch.weights[:, 1:], batch.kinds[:, 1:])
            position = Position(
                step=position.step + 1,
                tokens=position.tokens + token_losses.numel(),
                seconds=time.monotonic() - started,
                chunk=chunk,
                row=row,
            )
            finished = position.seconds >= minutes * 60
            if position.step % LOG_EVERY == 0 or finished:
                figures = meter.read()
                rounded = [f"{value:.4f}" for value in [*figures, factor]]
                writer.writerow([position.step, position.tokens, f"{position.seconds:.0f}", *rounded])
                stream.flush()
                shown = " ".join(f"{name} {value:.3f}" for name, value in zip(LOSS_NAMES, figures, strict=True))
                log.info(
                    "step %d, %.2f M tokens, %.1f min: %s",
                    position.step,
                    position.tokens / 1e6,
                    position.seconds / 60,
                    shown,
                )
            if position.seconds - last_saved > SAVE_EVERY or finished:
                last_saved = position.seconds
                save_checkpoint(checkpoint, model, [optimizer.state_dict() for optimizer, _ in rates], position)
            if finished:
                return


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=85.0, help="wall-clock time of the training (default 85)")
    parser.add_argument("--output", type=Path, default=here, help="folder of the model (default: this one)")
    parser.add_argument(
        "--work",
        type=Path,
        default=here.parents[1] / "scratch" / "training",
        help="folder of the resumable checkpoint (default: scratch/training)",
    )
    parser.add_argument("--export-only", action="store_true", help="write the model as the last checkpoint has it")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated; the same command goes on from the last checkpoint"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokenizer_folder = arguments.work / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").exists():
        packing.build_tokenizer().save_pretrained(tokenizer_folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config()).to("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.export_only:
        model.load_state_dict(torch.load(arguments.work / "checkpoint.pt", weights_only=True)["model"])
    else:
        train(
            model,
            tokenizer_folder / "tokenizer.json",
            minutes=arguments.minutes,
            work=arguments.work,
            log_file=arguments.output / "training_log.csv",
        )
    export(model, tokenizer, arguments.output)


if __name__ == "__main__":
    main()
