"""Measure a checkpoint of the bundled model: probe accuracy per kind, and loss per kind on the evaluation samples.

    python assets/model/measure.py

Greedy decoding answers an exact-match item right exactly when, reading prompt and answer, the most likely token is the
next one at every position of the answer; so one forward pass replaces the generation.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger("measure")
ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE = 16


@torch.no_grad()
def read_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each text its ids and the logits of every next token: int64 [seq], float32 [seq - 1, vocab]."""
    result = []
    for start in range(0, len(texts), BATCH_SIZE):
        rows = [tokenizer(text).input_ids for text in texts[start : start + BATCH_SIZE]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        logits = model(input_ids=ids).logits.float()  # causal: padding on the right changes nothing to its left
        result += [(torch.tensor(row), logits[index, : len(row) - 1]) for index, row in enumerate(rows)]
    return result


def answer_start(tokenizer: PreTrainedTokenizerFast, prompt: str, text: str) -> int:
    """The number of tokens of `prompt`, which must also begin `text`."""
    prompt_ids = tokenizer(prompt).input_ids
    if tokenizer(text).input_ids[: len(prompt_ids)] != prompt_ids:
        raise ValueError(f"The probe text splits a token between prompt and answer: {text!r}. Move the boundary.")
    return len(prompt_ids)


def probe_results(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, probe: dict) -> list[bool]:
    """Whether each item of a probe is answered right."""
    items = probe["items"]
    if probe["type"] == "exact_match":
        texts = [item["prompt"] + item["answer"] for item in items]
        results = []
        for item, text, (ids, logits) in zip(items, texts, read_batches(model, tokenizer, texts), strict=True):
            start = answer_start(tokenizer, item["prompt"], text)
            results.append(bool((logits[start - 1 :].argmax(-1) == ids[start:]).all()))
        return results
    likelihoods = {}
    for side in ("good", "bad"):
        texts = [item["prompt"] + item[side] for item in items]
        likelihoods[side] = []
        for item, text, (ids, logits) in zip(items, texts, read_batches(model, tokenizer, texts), strict=True):
            start = answer_start(tokenizer, item["prompt"], text)
            likelihoods[side].append(-F.cross_entropy(logits[start - 1 :], ids[start:], reduction="sum").item())
    return [good > bad for good, bad in zip(likelihoods["good"], likelihoods["bad"], strict=True)]


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """exp of the mean negative log-likelihood over all next tokens of all texts."""
    total, count = 0.0, 0
    for ids, logits in read_batches(model, tokenizer, texts):
        total += F.cross_entropy(logits, ids[1:], reduction="sum").item()
        count += len(ids) - 1
    return math.exp(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent, help="folder of the checkpoint")
    parser.add_argument(
        "--probes", type=Path, default=ROOT / "transact" / "evaluation" / "probes.json", help="the probe file"
    )
    parser.add_argument("--samples", type=Path, default=ROOT / "assets" / "samples", help="folder of the sample files")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    log.info("| kind | items | probe accuracy | perplexity |")
    log.info("|---|---|---|---|")
    for probe in json.loads(arguments.probes.read_text(encoding="utf-8"))["probes"]:
        results = probe_results(model, tokenizer, probe)
        lines = (arguments.samples / f"evaluation_{probe['kind']}.jsonl").read_text(encoding="utf-8").splitlines()
        value = perplexity(model, tokenizer, [json.loads(line)["text"] for line in lines])
        accuracy = sum(results) / len(results)
        log.info("| %s | %d | %.1f %% | %.3f |", probe["kind"], len(results), 100 * accuracy, value)


if __name__ == "__main__":
    main()
