"""The README.md of a saved checkpoint: where it comes from, what was cut, how to load it."""

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from transact.export.proof import Proof
from transact.models import sources
from transact.models.front_matter import front_matter
from transact.models.loaded_model import LoadedModel
from transact.redaction import without_tokens
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import compose_cuts

if TYPE_CHECKING:
    from transact.export.report import SaveReport

_LONGEST_NAME = 200
_ENTITIES = {letter: f"&#{ord(letter)};" for letter in "&<>`*[]|\\"}
_PAPER = "https://arxiv.org/abs/2407.05690"


_TEMPLATE_NOTE = (
    "The tokenizer's chat template is a program in Jinja that came with `{name}`; it was copied as it stands and not "
    "checked. Read it before you run it with anything that does not confine it."
)


def write_card(path: Path, loaded: LoadedModel, report: "SaveReport") -> None:
    """Write the card; its metadata names the base model and its licence where they are known."""
    data = ModelCardData(
        base_model=_base_model(loaded),
        license=_licence(loaded),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["pruning", "transact"],
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_body(loaded, report)}"
    path.write_text(text, encoding="utf-8", errors="replace")


_LOADED_BY_STOCK = (
    "from transformers import AutoModelForCausalLM",
    "",
    'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
)
_LOADED_HERE = ("import transact as ta", "", 'loaded = ta.load("path/to/this/folder")')


def _body(loaded: LoadedModel, report: "SaveReport") -> str:
    name = _plain(model_name(loaded))
    lines = [
        f"# {name}, pruned" if loaded.cuts else f"# {name}",
        "",
        f"Activation-guided structured pruning of `{name}` after TransAct ({_PAPER}): head groups"
        f"{', dimensions of heads' if loaded.spec.has_narrow_heads else ''} and MLP channels were removed inside the "
        f"modules, the residual stream between them is as it was.{_removed_layers(loaded)}"
        if loaded.cuts
        else f"A copy of `{name}`, nothing removed.",
        "",
    ]
    if loaded.cuts:
        plan = compose_cuts(loaded.cuts)
        before, after = plan.dense_spec, loaded.spec
        repairs = ", ".join(cut.compensation for cut in loaded.cuts)
        lines += [
            "| | before | after |",
            "|---|---|---|",
            f"| parameters | {before.num_parameters:,} | {after.num_parameters:,} |",
            f"| FLOPs per token (context 512) | {before.flops_per_token(context=512):,} "
            f"| {after.flops_per_token(context=512):,} |",
            f"| KV-cache bytes per token (16-bit) | {before.kv_bytes_per_token():,} | {after.kv_bytes_per_token():,} |",
            f"| KV-cache bytes of {(context := after.max_position_embeddings):,} tokens (16-bit) "
            f"| {before.kv_bytes(context):,} | {after.kv_bytes(context):,} |",
            f"| head groups per layer | {per_layer(before, 'num_key_value_heads')} "
            f"| {per_layer(after, 'num_key_value_heads')} |",
            f"| channels per layer | {per_layer(before, 'intermediate_size')} "
            f"| {per_layer(after, 'intermediate_size')} |",
            *_head_widths(before, after),
            "",
            f"Scored with `{_plain(plan.metric)}` on {_plain(plan.calibration)}; allocation: "
            f"{_plain(plan.allocation)}; compensation: {repairs}. The kept indices are in `plan.json`.",
            "",
        ]
        trainings = [_plain(cut.trained) for cut in loaded.cuts if cut.trained]
        lines += ["Trained after the cuts:", "", *(f"- {training}" for training in trainings), ""] if trainings else []
        if loaded.cuts[-1].repeat:
            again = f'`ta.compress(loaded, calibration, repeat="{loaded.cuts[-1].repeat}")`'
            lines += [f"The last cut is made again, from the same text, by {again}.", ""]
    lines += [*report.notes, ""] if report.notes else []
    lines += [_TEMPLATE_NOTE.format(name=name), ""] if has_foreign_template(loaded) else []
    lines += [
        "```python",
        *(_LOADED_HERE if report.compact else _LOADED_BY_STOCK),
        "```",
        "",
    ]
    lines += [] if report.compact else [f"Needs transformers {loaded.layout.lowest_transformers} or later.", ""]
    lines += [] if report.proof is None else _proof(report.proof)
    return "\n".join(lines)


def _removed_layers(loaded: LoadedModel) -> str:
    """A sentence on the layers that went whole, by their numbers in the model before the first cut."""
    removed = compose_cuts(loaded.cuts).removed_layers
    if not removed:
        return ""
    left = loaded.spec.num_hidden_layers
    return (
        f" Of its {left + len(removed)} decoder layers, counted from 0, these were removed whole: "
        f"{', '.join(map(str, removed))}."
    )


def has_foreign_template(loaded: LoadedModel) -> bool:
    """Whether the model has a chat template, which is a program, from an untrusted source."""
    return loaded.source != sources.BUNDLED and bool(getattr(loaded.tokenizer, "chat_template", None))


def _plain(text: str) -> str:
    """An untrusted name, on one line and with Markdown and HTML escaped."""
    line = without_tokens(" ".join(text.split()))[:_LONGEST_NAME]
    return "".join(_ENTITIES.get(letter, letter) for letter in line)


def _head_widths(before: ModelSpec, after: ModelSpec) -> list[str]:
    """Rows of the table, where heads are narrower than they were."""
    if not after.has_narrow_heads:
        return []
    return [
        f"| dimensions of queries and keys | {before.query_key_dim} | {after.query_key_dim} |",
        f"| dimensions of values | {before.value_dim} | {after.value_dim} |",
    ]


def _proof(proof: Proof) -> list[str]:
    """What was compared with the written model, and the result."""
    return [
        "## Proof",
        "",
        f"{proof.outcome} {proof.protocol}",
        "",
        "| | |",
        "|---|---|",
        f"| loaded as | `{proof.model_class}` |",
        f"| largest difference of logits (allowed) | {proof.largest_difference:.2g} ({proof.tolerance:.2g}) |",
        f"| positions and tokens compared | {proof.tokens_compared:,} |",
        f"| weights, computed in | {proof.dtype}, {proof.computed_in} |",
        f"| transformers, torch, Python | {proof.transformers}, {proof.torch}, {proof.python} |",
        "",
    ]


def per_layer(spec: ModelSpec, name: str) -> str:
    """One number where all layers agree, otherwise one per layer."""
    counts = [getattr(layer, name) for layer in spec.layers]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def model_name(loaded: LoadedModel) -> str:
    """What people call the base model: its hub id, or the folder it lies in."""
    folder = sources.local_folder(loaded.source)
    return loaded.source if folder is None or loaded.source == sources.BUNDLED else folder.resolve().name


def _base_model(loaded: LoadedModel) -> str | None:
    """The hub id; folders and the bundled model have none."""
    return loaded.source if sources.is_hub_id(loaded.source) else None


def _licence(loaded: LoadedModel) -> str | None:
    """The licence in the base model's own card; None where the card cannot be read."""
    card = sources.card_file(loaded.source, loaded.revision)
    try:
        licence = None if card is None else front_matter(card).get("license")
    except Exception:  # untrusted YAML raises many types
        return None
    return licence if isinstance(licence, str) else None
