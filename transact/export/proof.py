"""The proof that a written checkpoint is the model: stock `transformers`, in a process of its own, computes the same.

The weights in memory may be wider than those of the files, so both sides of the comparison hold the weights
as the files do and compute in float32 (float64 for float64 files) on the CPU. In a half precision the order of a sum
alone moves logits by a hundredth, which would hide real mistakes.
"""

import math
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import PreTrainedModel

from transact.errors import CheckpointBroken, NotEnoughMemory
from transact.export import proof_script
from transact.export.config_json import needs_eager
from transact.export.file_tensors import as_stored
from transact.layers.hooks import checking, copy_without_hooks, hooks_suspended
from transact.models import sources
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.runtime import isolated_process
from transact.runtime.devices import free_bytes
from transact.runtime.isolated_process import IsolatedProcessFailed
from transact.spec.memory_estimates import required_bytes
from transact.text.encoding import encode

_ROWS, _ROW_TOKENS, _NEW_TOKENS, _SEED = 4, 32, 24, 0
_TEXT = 'Once upon a time, in 1984, a naïve fox said: "2 + 2 = 4!"\n\tif x > 0: return [x]'
"""Words, digits, signs, an accent, a line break and a tab, as tokenizers differ in these."""
_SHARE = {"float32": 1e-4, "float64": 1e-10}
"""Largest difference allowed, as a share of the largest logit. Measured: 0 where shapes are the same, up to 1.5e-6
(float32) and 5e-15 (float64) where zeros pad; one matrix of stories260K rounded to bfloat16 makes 1e-3."""
_SECONDS = 3600.0


@dataclass(frozen=True)
class Proof:
    """How a checkpoint compares with the model in memory; `reason` says why where it did not pass.

    `model_class`: the stock class that loaded it. `largest_difference`: of all logits compared; `tolerance`: the most
    that is allowed; both, as `same_text`, None where the comparison did not get that far. `tokens_compared`: positions
    whose logits are compared and tokens written. `dtype`: of the files; `computed_in`: of the comparison.
    """

    dtype: str
    computed_in: str
    tokens_compared: int
    protocol: str
    passed: bool = False
    reason: str | None = None
    model_class: str | None = None
    largest_difference: float | None = None
    tolerance: float | None = None
    same_text: bool | None = None
    transformers: str = transformers.__version__
    torch: str = torch.__version__
    python: str = platform.python_version()
    seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """One sentence."""
        if not self.passed:
            return f"Not proved: {self.reason}."
        return (
            f"Proved: a fresh process with transformers {self.transformers} alone computed the same logits (largest "
            f"difference {self.largest_difference:.2g}) and the same text."
        )


@dataclass(frozen=True)
class _Question:
    """The input of both sides: rows of token ids, of which the last is continued, and a text with its own ids."""

    rows: list[list[int]]
    new_tokens: int
    text: str | None
    token_ids: list[int] | None

    @classmethod
    def for_model(cls, loaded: LoadedModel) -> "_Question":
        """Half of a short context is left for the continuation."""
        most = max(1, loaded.context_length // 2)
        draws = torch.Generator().manual_seed(_SEED)
        rows = torch.randint(loaded.spec.vocab_size, (_ROWS, min(_ROW_TOKENS, most)), generator=draws).tolist()
        text = token_ids = None
        if loaded.tokenizer is not None:
            text, token_ids = _TEXT, encode([_TEXT], loaded.tokenizer, special=True)[0].tolist()
            rows.append(token_ids[:most])
        new_tokens = max(1, min(_NEW_TOKENS, loaded.context_length - len(rows[-1])))
        return cls(rows, new_tokens, text, token_ids)

    def proof(self, dtype: str) -> Proof:
        """A proof that has not passed yet."""
        computed_in = "float64" if dtype == "float64" else "float32"
        positions = sum(map(len, self.rows))
        text = "" if self.text is None else f" and of a text of {len(self.rows[-1])} tokens, which is tokenised anew"
        protocol = (
            "A fresh process, offline and without the project or remote code, loads the folder on the CPU. Both sides "
            f"hold the weights as the files do ({dtype}) and compute in {computed_in}. Compared are the logits at all "
            f"{positions} positions of {_ROWS} sequences of {len(self.rows[0])} random tokens (seed {_SEED}){text}; "
            f"at most {_SHARE[computed_in]:g} of the largest logit may be between them. Then {self.new_tokens} tokens "
            "are written greedily after the last sequence; they must be the same, up to a tie within that limit."
        )
        return Proof(dtype, computed_in, positions + self.new_tokens, protocol)


@hooks_suspended()
def prove(
    loaded: LoadedModel,
    folder: str | Path,
    *,
    python: str | Path | None = None,
    progress: Progress = NO_PROGRESS,
    seconds: float = _SECONDS,
) -> Proof:
    """Load the checkpoint in `folder` in a fresh process without this package and compare it with `loaded`.

    `python`: the interpreter of that process, by default this one; another one may have other versions of
    `transformers` (4.57 or later) and torch. The proof says how (`protocol`), and why it failed (`reason`). The
    process is killed after `seconds`. Raises `NotEnoughMemory` where the model does not fit once more, and whatever
    `progress` raises.
    """
    began = time.monotonic()
    folder = Path(folder).expanduser().resolve()
    question = _Question.for_model(loaded)
    proof = question.proof(loaded.file_dtype)
    try:
        proof = question.proof(sources.check_weights(sources.weight_files(folder), loaded.spec.stored))
        run_fresh = partial(
            isolated_process.run, Path(proof_script.__file__), progress=progress, seconds=seconds, python=python
        )
        proof = _compared(loaded, folder, question, proof, progress, run_fresh)
    except (CheckpointBroken, IsolatedProcessFailed) as error:
        proof = replace(proof, reason=str(error).rstrip("."))
    return replace(proof, seconds=time.monotonic() - began)


def _compared(
    loaded: LoadedModel,
    folder: Path,
    question: _Question,
    proof: Proof,
    progress: Progress,
    run_fresh: Callable[..., dict],
) -> Proof:
    """The proof with its verdict. One side after the other, so that memory holds one more model, not two."""
    computing = DTYPES[proof.computed_in]
    _check_memory(required_bytes(loaded.spec.stored, computing))
    with tempfile.TemporaryDirectory(prefix="transact-proof-") as values:
        request = {
            "folder": str(folder), "dtype": proof.computed_in, "rows": question.rows, "text": question.text,
            "new_tokens": question.new_tokens, "values": values,
            "eager_in_4": needs_eager(loaded.model.config) is not None,
        }  # fmt: skip
        try:
            offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
            answer = run_fresh(request=request, environment=offline)
        except IsolatedProcessFailed as error:
            raise IsolatedProcessFailed(f"the fresh process did not come to an end: {error}") from None
        proof = replace(proof, **{name: answer[name] for name in ("model_class", "transformers", "torch", "python")})
        if answer["missing"]:
            return replace(proof, reason=f"the checkpoint lacks the tensor {answer['missing'][0]}")
        if answer["token_ids"] != question.token_ids:
            reason = "the tokenizer in the folder cuts a text into other tokens than that in memory"
            return replace(proof, reason=reason)
        theirs = load_file(proof_script.written_file(values))
        model = _as_stored(loaded, DTYPES[proof.dtype], computing)
        ours, differences = _compared_rows(model, question, Path(values), loaded.layout.layers, progress)
    proof = _with_differences(proof, differences)
    if proof.reason is not None:
        return proof
    text = None
    if question.text is not None:
        assert loaded.tokenizer is not None, "a question without a tokenizer has no text"
        text = loaded.tokenizer.decode(ours["written"])
    return _with_text(proof, ours, theirs, same_reading=answer["text"] == text)


def _compared_rows(
    model: PreTrainedModel, question: _Question, values: Path, layers: str, progress: Progress
) -> tuple[dict[str, torch.Tensor], list[tuple[float, float]]]:
    """What the model in memory writes, and the `_difference` of the logits of each row from those in `values`."""
    differences: list[tuple[float, float]] = []

    def take(number: int, logits: torch.Tensor) -> None:
        differences.append(_difference(logits, load_file(proof_script.row_file(values, number))["logits"]))

    watch = Repeating(progress, len(question.rows) + 1, "steps")
    with checking(model.get_submodule(layers), watch.check):
        return proof_script.computed(model, question.rows, question.new_tokens, take, watch), differences


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest difference of logits [position, vocab], and the largest of ours; NaN where there is one."""
    return float((ours - theirs).abs().max()), float(ours.abs().max())


def _as_stored(loaded: LoadedModel, stored: torch.dtype, computing: torch.dtype) -> PreTrainedModel:
    """The model on the CPU with the weights of the files, in the dtype to compute in; itself where nothing differs."""
    model = loaded.model
    wider = any(kept.dtype.itemsize > computing.itemsize for kept in loaded.stored_exceptions.values())
    if loaded.device.type == "cpu" and loaded.dtype == stored == computing and not wider:
        return model
    # copying takes these from the memo: no weight is copied before its conversion, and buffers keep their dtype
    converted: dict = {
        id(weight): torch.nn.Parameter(
            as_stored(loaded, name, weight.detach(), stored).to("cpu", computing), requires_grad=False
        )
        for name, weight in model.named_parameters()
    }
    converted |= {id(buffer): buffer.to("cpu") for buffer in model.buffers()}
    return copy_without_hooks(model, converted)


def _with_differences(proof: Proof, differences: list[tuple[float, float]]) -> Proof:
    """The proof with the largest difference of all rows, and a reason if it is too large."""
    difference, largest = torch.tensor(differences, dtype=torch.float64).amax(dim=0).tolist()  # NaN where there is one
    tolerance = _SHARE[proof.computed_in] * max(1.0, largest)
    proof = replace(proof, tolerance=tolerance, largest_difference=difference)
    if not math.isfinite(difference):
        return replace(proof, reason="the logits are NaN or infinite")
    if difference > tolerance:
        reason = f"the logits differ by up to {difference:.2g}; at most {tolerance:.2g} is allowed"
        return replace(proof, reason=reason)
    return proof


def _with_text(
    proof: Proof, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], *, same_reading: bool
) -> Proof:
    """The proof with its verdict on what was written."""
    own, other = ours["written"], theirs["written"]
    differing = (own != other).nonzero().flatten().tolist()
    if not differing:
        reason = None if same_reading else "the tokenizer in the folder reads the same tokens as another text"
        return replace(proof, passed=same_reading, same_text=same_reading, reason=reason)
    # tokens with equal logits may change places; after the first such token the texts cannot be compared
    first, choices = differing[0], ours["choices"][differing[0]]
    assert proof.tolerance is not None, "the logits were compared before"
    if float(choices[own[first]] - choices[other[first]]) <= 2 * proof.tolerance:
        compared = proof.tokens_compared - len(own) + first
        return replace(proof, passed=True, same_text=True, tokens_compared=compared)
    return replace(proof, same_text=False, reason=f"token {first + 1} of the text written greedily is another one")


def _check_memory(needed: int) -> None:
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise NotEnoughMemory(
            f"The proof loads the model once more, which takes about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free. Free some memory, or save without the proof (prove=False, or --no-proof in a shell)."
        )
