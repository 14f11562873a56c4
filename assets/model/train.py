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
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import corpus
import packing
import torch
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger("train")

ROWS_PER_STEP = 8  # 4,096 tokens: small steps learn more from the little text that two cores can read in time
WARM_UP_STEPS = 40
DECAY_FRACTION = 0.5  # of the time; a long decay paid off more than a long constant stretch at this size
MUON_RATE = 4e-3  # hidden matrices, on the scale of AdamW (adjust_lr_fn="match_rms_adamw")
ADAMW_RATE = 3e-3  # embedding and norms
WEIGHT_DECAY = 0.05
LOG_EVERY = 20  # steps
SAVE_EVERY = 120.0  # seconds


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
        vocab_size=packing.VOCAB_SIZE, hidden_size=192, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=24, intermediate_size=512, max_position_embeddings=packing.CONTEXT,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=packing.BOS_ID, eos_token_id=packing.EOS_ID,
        pad_token_id=packing.EOS_ID, initializer_range=0.03)


def optimizers(model: LlamaForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
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


class KindMeter:
    """The mean loss over predictable tokens, for each kind since the last reading."""

    def __init__(self) -> None:
        self.total = torch.zeros(len(corpus.KINDS))
        self.count = torch.zeros(len(corpus.KINDS))

    def add(self, loss: torch.Tensor, weights: torch.Tensor, kinds: torch.Tensor) -> None:
        predictable = weights == 1.0
        chosen = kinds[predictable]
        self.total += torch.zeros_like(self.total).index_add_(0, chosen, loss[predictable])
        self.count += torch.zeros_like(self.count).index_add_(0, chosen, torch.ones(len(chosen)))

    def read(self) -> list[float]:
        means = (self.total / self.count.clamp(min=1)).tolist()
        self.__init__()
        return means


def save_checkpoint(file: Path, model: LlamaForCausalLM, states: list[dict], position: Position) -> None:
    """Everything that going on needs, written whole or not at all."""
    partial = file.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizers": states, "position": vars(position)}, partial)
    partial.replace(file)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A stock bfloat16 checkpoint with its tokenizer."""
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    half.config.dtype = torch.bfloat16
    half.generation_config = GenerationConfig(
        bos_token_id=packing.BOS_ID, eos_token_id=packing.EOS_ID, pad_token_id=packing.EOS_ID)
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version of transformers knows
    for loading_detail in ("is_local", "local_files_only", "backend"):
        settings.pop(loading_detail, None)
    settings_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def train(
    model: LlamaForCausalLM, tokenizer_file: Path, *, minutes: float, work: Path, log_file: Path, compiled: bool,
) -> Position:
    """Train until the minutes are used; go on from `work/checkpoint.pt` when it is there."""
    device = next(model.parameters()).device
    pairs = optimizers(model)
    checkpoint = work / "checkpoint.pt"
    position = Position()
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        for (optimizer, _), state in zip(pairs, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        position = Position(**saved["position"])
        log.info("going on from step %d, %.1f minutes used", position.step, position.seconds / 60)
    forward = torch.compile(model) if compiled else model
    meter, running = KindMeter(), []
    step, tokens, chunk, row = position.step, position.tokens, position.chunk, position.row
    started = time.monotonic() - position.seconds
    last_saved = position.seconds
    budget = minutes * 60
    new_log = step == 0 or not log_file.exists()
    with ProcessPoolExecutor(1) as pool, log_file.open("w" if new_log else "a", newline="") as stream:
        writer = csv.writer(stream)
        if new_log:
            writer.writerow(["step", "tokens", "seconds", "loss", *(f"loss_{k}" for k in corpus.KINDS), "rate"])
        following = pool.submit(packing.training_chunk, tokenizer_file, chunk)
        data = None
        while (elapsed := time.monotonic() - started) < budget:
            if data is None or row + ROWS_PER_STEP > len(data[0]):
                if data is not None:
                    chunk, row = chunk + 1, 0
                data = [torch.from_numpy(array) for array in following.result()]
                following = pool.submit(packing.training_chunk, tokenizer_file, chunk + 1)
            ids, weights, kinds = (part[row:row + ROWS_PER_STEP] for part in data)
            factor = rate_factor(step, elapsed / budget)
            for optimizer, peak in pairs:
                optimizer.param_groups[0]["lr"] = peak * factor
            rows, token_weights = ids.to(device), weights[:, 1:].to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                logits = forward(input_ids=rows[:, :-1], use_cache=False).logits
            token_losses = losses(logits, rows)
            loss = (token_losses * token_weights).sum() / token_weights.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in pairs:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            meter.add(token_losses.detach().cpu(), weights[:, 1:], kinds[:, 1:])
            running.append(loss.item())
            step, tokens, row = step + 1, tokens + rows[:, 1:].numel(), row + ROWS_PER_STEP
            if step % LOG_EVERY == 0:
                seconds = time.monotonic() - started
                by_kind = meter.read()
                mean = sum(running) / len(running)
                figures = (f"{value:.4f}" for value in [mean, *by_kind, factor])
                writer.writerow([step, tokens, f"{seconds:.0f}", *figures])
                stream.flush()
                shown = " ".join(f"{kind} {v:.3f}" for kind, v in zip(corpus.KINDS, by_kind, strict=True))
                log.info("step %d, %.2f M tokens, %.1f min: %s", step, tokens / 1e6, seconds / 60, shown)
                running = []
            position = Position(step, tokens, time.monotonic() - started, chunk, row)
            if position.seconds - last_saved > SAVE_EVERY or position.seconds >= budget:
                last_saved = position.seconds
                save_checkpoint(checkpoint, model, [optimizer.state_dict() for optimizer, _ in pairs], position)
    return position


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=85.0, help="wall-clock time of the training (default 85)")
    parser.add_argument("--output", type=Path, default=here, help="folder of the model (default: this one)")
    parser.add_argument("--work", type=Path, default=here.parents[1] / "scratch" / "training",
                        help="folder of the resumable checkpoint (default: scratch/training)")
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    parser.add_argument("--export-only", action="store_true", help="write the model as the last checkpoint has it")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
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
        train(model, tokenizer_folder / "tokenizer.json", minutes=arguments.minutes, work=arguments.work,
              log_file=arguments.output / "training_log.csv", compiled=arguments.compile)
    export(model, tokenizer, arguments.output)


if __name__ == "__main__":
    main()
