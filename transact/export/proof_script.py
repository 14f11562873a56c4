"""Runs a checkpoint with stock `transformers`; run by path in a process without this package.

The same function computes both sides of a proof, so that only the model differs.
"""

import copy
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel


def computed(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    new_tokens: int,
    take: Callable[[int, torch.Tensor], None],
    report_progress: Callable[[int, int, str], None],
) -> dict[str, torch.Tensor]:
    """Logits and a greedy continuation of token ids, one sequence at a time.

    `take(number, logits)` gets the logits [position, vocab] at all positions of each row in turn, so that those of
    all rows need not be held together. `written` [new_tokens]: the greedy continuation of the last row; `choices`
    [new_tokens, vocab]: the logits that it was chosen from.
    """
    model = copy.copy(model)  # its own generation settings are replaced in the copy alone
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    steps = len(rows) + 1
    with torch.no_grad():
        for number, row in enumerate(rows):
            report_progress(number, steps, "steps")
            take(number, model(torch.tensor([row]), use_cache=False).logits[0])
        report_progress(len(rows), steps, "steps")
        last = torch.tensor([rows[-1]])
        written = model.generate(last, attention_mask=torch.ones_like(last))
    report_progress(steps, steps, "steps")
    return {
        "written": written.sequences[0, last.shape[1] :].contiguous(),
        "choices": torch.cat(written.logits),
    }


def row_file(values: str | Path, number: int) -> Path:
    """The file with the logits of one row."""
    return Path(values) / f"row-{number}.safetensors"


def written_file(values: str | Path) -> Path:
    """The file with the continuation."""
    return Path(values) / "written.safetensors"


def answer(request: dict, send: Callable[[dict], None]) -> dict:
    """Load the folder of the request, compute, and save the tensors in its folder `values`."""
    folder = request["folder"]
    eager = request["eager_in_4"] and transformers.__version__.startswith("4.")
    model, loading_info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, request["dtype"]),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **({"attn_implementation": "eager"} if eager else {}),
    )
    tokenizer = None
    if request["text"] is not None:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def take(number: int, logits: torch.Tensor) -> None:
        save_file({"logits": logits.contiguous()}, row_file(request["values"], number))

    def report_progress(*step: int | str) -> None:
        send({"progress": step})

    values = computed(model.eval(), request["rows"], request["new_tokens"], take, report_progress)
    save_file(values, written_file(request["values"]))
    return {
        "model_class": type(model).__name__,
        "missing": sorted(loading_info["missing_keys"]),
        "token_ids": None if tokenizer is None else tokenizer(request["text"])["input_ids"],
        "text": None if tokenizer is None else tokenizer.decode(values["written"]),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
