"""A pruned model as a checkpoint that stock `transformers` loads, with its plan and a model card.

A uniform result keeps its class where that class takes the head count. `LlamaConfig` refuses counts that do
not divide the hidden size; Mistral (without biases) and Granite (with them) compute the same function from
tensors of the same names and take any count. Everything else is padded with zeros, which changes nothing but the
size: layers of different sizes to the widest, heads to the next number that the configuration can name, and heads
that lost dimensions to their full width. Or it is kept compact, for `ta.load` and, where only heads are narrower, for
the classes that this package registers (`transact.layers.narrow_auto_classes`).
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PreTrainedConfig,
)

from transact.errors import InvalidOption, SaveRefused, choice
from transact.export.config_json import needs_eager, write_config
from transact.export.file_tensors import file_tensors
from transact.export.model_card import write_card
from transact.export.proof import Proof, prove
from transact.export.report import SaveReport
from transact.export.tensor_writer import write_tensors
from transact.layers import per_layer_config
from transact.layers.narrow_auto_classes import narrow_config
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.models.stock_config import stock_config
from transact.models.tokenizer_files import write_tokenizer
from transact.progress import NO_PROGRESS, Progress
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import compose_cuts

PLAN_FILE = "plan.json"
LAYERS = ("padded", "compact")
"""How sizes that no stock configuration can name are written."""
_COMPACT_NOTE = (
    "The files hold every layer at the size it has (per_layer_config), which stock transformers cannot load yet; "
    "ta.load does."
)
_EAGER_NOTE = 'transformers 4 leaves out {} unless it is told to load the model with attn_implementation="eager".'
_PATTERN_NOTE = (
    "Layers were removed whole, and those that are left differ in kind: {} in config.json says how. transformers reads "
    "that; software that derives it from the layers' numbers instead, as llama.cpp does for some families, computes "
    "something else."
)
_NARROW_NOTE = (
    "The files hold heads whose queries and keys have {query_key_dim} of {head_dim} dimensions and whose values have "
    "{value_dim}. No stock class computes such heads: only this project loads the files, with ta.load or, after "
    "`import transact`, with AutoModelForCausalLM."
)


def save(
    loaded: LoadedModel,
    directory: str | Path,
    *,
    dtype: str | None = None,
    layers: str = "padded",
    prove: bool = False,
    progress: Progress = NO_PROGRESS,
) -> SaveReport:
    """Write a stock checkpoint, tokenizer, `plan.json` and model card.

    Weights keep the dtype they have in memory unless `dtype` names another. Sizes that a stock configuration cannot
    name (layers that differ, some head counts, narrower heads) are `"padded"` with zeros, or kept `"compact"`
    (`transact.layers.per_layer_config`, `transact.layers.narrow_auto_classes`): smaller files and memory, but only this
    project loads them.

    With `prove` a fresh process without this package loads what was written and must compute the same (`ta.prove`; the
    start of a process and one more model in memory, hence an option); the card then says how. The folder
    appears only when all of it is written, and proved.

    Raises `InvalidOption` for an unknown option, and where both `prove` and compact sizes are asked for; `SaveRefused`
    if `directory` holds files already, the disk refuses or the proof fails; `NotEnoughMemory` and what `progress`
    raises where the proof does.
    """
    if prove and choice(layers, LAYERS, "layers") == "compact" and not loaded.spec.is_stock:
        raise InvalidOption(
            "Stock transformers cannot load these sizes yet, so a compact checkpoint cannot be proved. "
            'Save with layers="padded", or with prove=False.'
        )
    directory = empty_destination(directory)
    target = DTYPES[choice(dtype, DTYPES, "dtype")] if dtype else loaded.dtype
    form = form_of(loaded, directory, target, layers)
    tensors = form.named(file_tensors(loaded, form.spec, target))
    report = form.report
    partial = partial_folder(directory, secrets.token_hex(4))
    try:
        partial.mkdir(parents=True)
        form.write_config(partial)
        write_tensors(tensors, partial, progress)
        write_companions(partial, loaded)
        if prove:
            del tensors  # the proof needs the memory
            report = replace(report, proof=_proved(loaded, partial, progress))
        write_card(partial / "README.md", loaded, report)
        move_in(partial, directory)
    except (OSError, SafetensorError) as error:
        raise SaveRefused(
            f"{directory} could not be written ({error}). Free some space or choose another place."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


@dataclass(frozen=True)
class Form:
    """How a model is written: the configuration and the sizes in the files, and the report of it (without a proof)."""

    config: PreTrainedConfig
    spec: ModelSpec
    report: SaveReport

    @property
    def _names_all(self) -> bool:
        """Whether the configuration alone gives every size, as our own with narrower heads does where layers agree."""
        return self.spec.has_narrow_heads and self.spec.is_uniform

    def named(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's tensors by the names that files have for them: those of stock files unless compact."""
        renamed = {} if self.report.compact else dict(self.spec.layout.file_names)
        return {renamed.get(name, name): tensor for name, tensor in tensors.items()}

    def write_config(self, folder: Path) -> None:
        """config.json, which a stock model would write itself; compact sizes are added to it."""
        write_config(self.config, folder)
        if self.report.compact and not self._names_all:
            per_layer_config.add_to(folder / "config.json", self.spec)


def form_of(loaded: LoadedModel, directory: Path, dtype: torch.dtype, layers: str) -> Form:
    """How `loaded` is written with weights in that dtype, `layers` one of `LAYERS`; looks at shapes alone."""
    compact = choice(layers, LAYERS, "layers") == "compact" and not loaded.spec.is_stock
    stored = loaded.spec.stored
    config, notes = stock_config(loaded.model.config, stored)
    narrow = compact and loaded.spec.has_narrow_heads
    if narrow:
        config = narrow_config(config, loaded.spec)
        notes.append(_NARROW_NOTE.format_map(vars(loaded.spec)))
    config.dtype, config.architectures = dtype, [_class_name(config)]
    lost = 0 if compact else stored.num_parameters - loaded.spec.num_parameters
    if compact and not (narrow and loaded.spec.is_uniform):
        notes.append(_COMPACT_NOTE)
    elif lost:
        notes.append(_padding_note(loaded.spec, stored))
    if needs_eager(config) is not None:
        notes.append(_EAGER_NOTE.format(needs_eager(config)))
    patterns = [name for name in loaded.layout.layer_lists if len(set(getattr(config, name, None) or ())) > 1]
    if patterns and loaded.cuts and compose_cuts(loaded.cuts).removed_layers:
        notes.append(_PATTERN_NOTE.format(" and ".join(patterns)))
    report = SaveReport(
        directory=str(directory),
        model_class=_class_name(config),
        parameters_written=loaded.spec.num_parameters + lost,
        parameters_lost=lost,
        kv_bytes_per_token_lost=0 if compact else stored.kv_bytes_per_token() - loaded.spec.kv_bytes_per_token(),
        padded=bool(lost),
        notes=tuple(notes),
        compact=compact,
    )
    return Form(config, loaded.spec if compact else stored, report)


def partial_folder(directory: Path, mark: str) -> Path:
    """Where a checkpoint is until it is complete; inside the folder if that exists (maybe a mount)."""
    if directory.exists():
        return directory / f".{mark}.partial"
    return directory.with_name(f".{directory.name}.{mark}.partial")


def move_in(partial: Path, directory: Path) -> None:
    """Move the complete checkpoint to its place; an existing folder keeps its place and mode."""
    if partial.parent != directory:
        os.replace(partial, directory)
        return
    for file in sorted(partial.iterdir()):
        os.replace(file, directory / file.name)
    partial.rmdir()


def empty_destination(directory: str | Path, *, but: str = "") -> Path:
    """The folder for a checkpoint, which is absent or empty except for an entry named `but`.

    Raises `SaveRefused` for one that holds files, and for what can't be a folder.
    """
    try:
        directory = Path(directory).expanduser().resolve()
        taken = directory.exists() and (
            not directory.is_dir() or any(entry.name != but for entry in directory.iterdir())
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SaveRefused(f"{str(directory)!r} cannot be a folder ({error}). Choose another place.") from None
    if taken:
        raise SaveRefused(f"{directory} exists and is not an empty folder. Choose a new one.")
    return directory


def _proved(loaded: LoadedModel, folder: Path, progress: Progress) -> Proof:
    proof = prove(loaded, folder, progress=progress)
    if not proof.passed:
        raise SaveRefused(
            "The checkpoint is not kept, as stock transformers was not proved to compute the same from it: "
            f"{proof.reason}. Try again; if it stays so, keep the plan, and report it with this sentence."
        )
    return proof


def _class_name(config: PreTrainedConfig) -> str:
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__


def write_companions(folder: Path, loaded: LoadedModel) -> None:
    """Write the files that go with the weights."""
    # as the base has it: saving through the model refuses sampling defaults of many published models
    loaded.model.generation_config.to_json_file(folder / "generation_config.json")
    if loaded.tokenizer is not None:
        write_tokenizer(loaded.tokenizer, loaded.tokenizer_class, folder)
    if loaded.cuts:
        (folder / PLAN_FILE).write_text(compose_cuts(loaded.cuts).to_json(), encoding="utf-8")


def _padding_note(spec: ModelSpec, written: ModelSpec) -> str:
    heads = written.layers[0].num_attention_heads
    if not spec.is_uniform:
        why = "Its layers have different sizes, and a stock configuration has one: zeros pad them to the widest"
        why += f" and to {heads} heads" if heads != spec.widest.layers[0].num_attention_heads else ""
        why += f" and its heads to {spec.head_dim} dimensions" if spec.has_narrow_heads else ""
    elif spec.has_narrow_heads:
        why = (
            f"Its heads have queries and keys of {spec.query_key_dim} dimensions and values of {spec.value_dim}, which "
            f"no stock class computes: zeros pad both to {spec.head_dim}"
        )
    else:
        why = (
            f"{spec.layout.label}'s configuration cannot name {spec.layers[0].num_attention_heads} heads of "
            f"{spec.head_dim}: zeros pad them to {heads}"
        )
    return (
        f"{why}, {written.num_parameters:,} parameters instead of {spec.num_parameters:,} and "
        f"{written.kv_bytes_per_token():,} KV-cache bytes per token (16-bit) instead of "
        f"{spec.kv_bytes_per_token():,}. The outputs are the same."
    )
