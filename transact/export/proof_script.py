"""What stock `transformers` makes of a checkpoint; run by path in a process that has nothing of this project.

The same function computes both sides of a proof, so that they differ in nothing but the model.
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
    told: Callable[[int, int, str], None],
) -> dict[str, torch.Tensor]:
    """What the model makes of token ids, one sequence at a time.

    `take(number, logits)` is given the logits [position, vocab] at all positions of each row in turn, so that those of
    all rows need not be held together. `written` [new_tokens]: the greedy continuation of the last row; `choices`
    [new_tokens, vocab]: the logits that it was chosen from.
    """
    model = copy.copy(model)  # its own settings for writing are put aside, not changed
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    steps = len(rows) + 1
    with torch.no_grad():
        for number, row in enumerate(rows):
            told(number, steps, "steps")
            take(number, model(torch.tensor([row]), use_cache=False).logits[0])
        told(len(rows), steps, "steps")
        last = torch.tensor([rows[-1]])
        written = model.generate(last, attention_mask=torch.ones_like(last))
    told(steps, steps, "steps")
    return {
        "written": written.sequences[0, last.shape[1] :].contiguous(),
        "choices": torch.cat(written.logits),
    }


def row_file(values: str | Path, number: int) -> Path:
    """Where a process that is asked leaves the logits of one row."""
    return Path(values) / f"row-{number}.safetensors"


def written_file(values: str | Path) -> Path:
    """Where it leaves what it wrote."""
    return Path(values) / "written.safetensors"


def answer(request: dict, tell: Callable[[dict], None]) -> dict:
    """Load the folder of the request, compute, and leave the tensors in the folder `values` that it names."""
    folder = request["folder"]
    eager = request["eager_in_4"] and transformers.__version__.startswith("4.")
    model, found = AutoModelForCausalLM.from_pretrained(
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

    def told(*step: int | str) -> None:
        tell({"progress": step})

    values = computed(model.eval(), request["rows"], request["new_tokens"], take, told)
    save_file(values, written_file(request["values"]))
    return {
        "model_class": type(model).__name__,
        "missing": sorted(found["missing_keys"]),
        "token_ids": None if tokenizer is None else tokenizer(request["text"])["input_ids"],
        "text": None if tokenizer is None else tokenizer.decode(values["written"]),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
