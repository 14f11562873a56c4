"""What one GGUF file holds, decided before anything is written: graph, vocabulary, tensors, and notes for its user."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import PreTrainedConfig

from transact.errors import SaveRefused
from transact.export.gguf.architectures import Architecture, fitting, known_architectures
from transact.export.gguf.tensors import StoredTensor, stored_tensors
from transact.export.gguf.vocabulary import Vocabulary, vocabulary_of
from transact.export.model_card import has_foreign_template, model_name, per_layer
from transact.models.loaded_model import LoadedModel
from transact.progress import Progress
from transact.spec.plan import compose_cuts

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


@dataclass(frozen=True)
class GgufFile:
    """A model for one architecture; `vocabulary` is None where it has no tokenizer, `notes` are for its user."""

    loaded: LoadedModel
    file_type: str
    architecture: Architecture
    vocabulary: Vocabulary | None
    tensors: tuple[StoredTensor, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, loaded: LoadedModel, file_type: str) -> "GgufFile":
        """Raises `SaveRefused` where llama.cpp could not compute what the model computes, or would read otherwise."""
        candidates = known_architectures(loaded.spec, loaded.model.config)
        factors = _frequency_factors(loaded)
        architecture = fitting(candidates, loaded.spec, scaled_rope=factors is not None)
        tensors = tuple(stored_tensors(loaded, architecture, file_type))
        notes = []
        other = sum(tensor.falls_back(file_type) for tensor in tensors)
        if other:
            notes.append(f"{other} tensors have rows that do not fill blocks of 32 and are stored in float16.")
        if factors is not None:
            tensors += (StoredTensor("rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32),)
        vocabulary = None
        if loaded.tokenizer is None:
            notes.append("The model has no tokenizer; the file takes and gives token numbers only.")
        else:
            vocabulary = vocabulary_of(loaded.tokenizer, loaded.spec.vocab_size)
            notes += vocabulary.notes
            if has_foreign_template(loaded):
                notes.append("The chat template in it came with the model and was copied as it stands, not checked.")
        window = _context_length(loaded.model.config)
        if window < loaded.spec.max_position_embeddings:
            notes.append(
                f"llama.cpp has no sliding window for this model, so the file's context ends where it begins: {window}."
            )
        return cls(loaded, file_type, architecture, vocabulary, tensors, tuple(notes))

    def write(self, path: Path, progress: Progress) -> None:
        """Header, then every tensor as soon as it is converted; progress counts bytes."""
        writer = gguf.GGUFWriter(path, self.architecture.name)
        self._describe(writer)
        self._write_sizes(writer)
        if self.vocabulary is None:
            writer.add_tokenizer_model("no_vocab")
        else:
            self.vocabulary.write(writer, self.loaded.tokenizer)
        for tensor in self.tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, tensor.type)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            done, total = 0, sum(tensor.bytes for tensor in self.tensors)
            progress(0, total, "bytes")
            for tensor in self.tensors:
                writer.write_tensor_data(tensor.stored())
                done += tensor.bytes
                progress(done, total, "bytes")
        finally:
            writer.close()

    def _describe(self, writer: gguf.GGUFWriter) -> None:
        """Name and description: the model, and what was cut."""
        name, cuts = model_name(self.loaded), self.loaded.cuts
        writer.add_name(f"{name}, pruned" if cuts else name)
        writer.add_file_type(_FILE_TYPES[self.file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if not cuts:
            return
        plan = compose_cuts(cuts)
        before, after = plan.dense_spec, self.loaded.spec
        kept = "; ".join(
            f"{label} per layer: {per_layer(after, size)} of {per_layer(before, size)}"
            for label, size in (("head groups", "num_key_value_heads"), ("channels", "intermediate_size"))
        )
        removed = f"layers removed whole: {', '.join(map(str, plan.removed_layers))}; " if plan.removed_layers else ""
        writer.add_description(
            f"{name} pruned by TransAct to {after.num_parameters:,} of {before.num_parameters:,} parameters; "
            f"{removed}{kept}; scored with {plan.metric} on {plan.calibration}; "
            f"compensation: {', '.join(cut.compensation for cut in cuts)}"
        )

    def _write_sizes(self, writer: gguf.GGUFWriter) -> None:
        """The numbers that build the graph."""
        spec, config = self.loaded.spec, self.loaded.model.config
        writer.add_context_length(_context_length(config))
        writer.add_vocab_size(spec.vocab_size)
        writer.add_embedding_length(spec.hidden_size)
        writer.add_block_count(spec.num_hidden_layers)
        for add, name in (
            (writer.add_head_count, "num_attention_heads"),
            (writer.add_head_count_kv, "num_key_value_heads"),
            (writer.add_feed_forward_length, "intermediate_size"),
        ):
            sizes = [getattr(layer, name) for layer in spec.layers]
            add(sizes if self.architecture.per_layer else sizes[0])
        for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
            add(spec.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        for name, key in self.architecture.scales:
            writer.add_float32(key, getattr(config, name))


def _context_length(config: PreTrainedConfig) -> int:
    """No longer than a sliding window, which these architectures lack: up to there attention is the same."""
    window = getattr(config, "sliding_window", None)
    return config.max_position_embeddings if window is None else min(window, config.max_position_embeddings)


def _frequency_factors(loaded: LoadedModel) -> torch.Tensor | None:
    """What divides each of RoPE's plain frequencies θ^(-2i / head_dim), float32 [head_dim / 2]; None for ones.

    Covers every scaling that only changes frequencies, as that of Llama 3 and the linear one. Raises `SaveRefused`
    for one that also depends on the length of the text, scales the attention, or leaves part of a head as it is.
    """
    rope = loaded.model.config.rope_parameters
    rotary = type(loaded.model.get_decoder().rotary_emb)(config=loaded.model.config)
    pairs = loaded.spec.head_dim // 2
    if rope["rope_type"] in ("dynamic", "longrope") or rotary.attention_scaling != 1 or len(rotary.inv_freq) != pairs:
        raise SaveRefused(
            f"RoPE of type {rope['rope_type']!r} cannot be written as GGUF here, only what scales its frequencies. "
            "Save the checkpoint instead, which llama.cpp's own converter may take."
        )
    if rope["rope_type"] == "default":
        return None
    return rope["rope_theta"] ** -(torch.arange(pairs, dtype=torch.float32) / pairs) / rotary.inv_freq
