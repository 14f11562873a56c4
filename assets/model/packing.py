"""From the corpus to rows of tokens: the tokenizer, and packed training rows with a loss weight per token."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import corpus
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
VOCAB_SIZE = 1500  # nearly every word of the corpus is one token
CONTEXT = 512
UNPREDICTABLE_WEIGHT = 0.15  # enough to learn what an operand looks like, too little to spend capacity on its value
DOCUMENTS_PER_CHUNK = 1024


def build_tokenizer(num_documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the corpus: every UTF-8 text goes in; a token a digit and a token a bracket."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[()\[\]{}<>|]"), behavior="isolated"),
        pre_tokenizers.Split(Regex(r" ?[0-9]"), behavior="isolated"),  # a space may go with the first digit
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    documents = islice(corpus.mixed_stream("train"), num_documents)
    tokenizer.train_from_iterator(("".join(text for text, _ in segments) for _, segments in documents), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS,
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False)


def encode_document(tokenizer: Tokenizer, segments: corpus.Segments) -> tuple[list[int], list[float]]:
    """Ids of BOS + text + EOS, and the loss weight of each token: that of the segment in which the token ends."""
    encoding = tokenizer.encode("".join(text for text, _ in segments))
    weights = [weight for text, predictable in segments
               for weight in [1.0 if predictable else UNPREDICTABLE_WEIGHT] * len(text)]
    token_weights = [weights[end - 1] for _, end in encoding.offsets[1:]]  # the first token is BOS, which has no text
    return [*encoding.ids, EOS_ID], [1.0, *token_weights, 1.0]


def packed_rows(tokenizer: Tokenizer, split: str, start: int, count: int) -> Iterator[tuple[list, list, list]]:
    """Rows of CONTEXT + 1 tokens from documents `start` to `start + count`: ids, loss weights, kind numbers.

    Every row begins with a whole document; the last one in it is cut, and its rest dropped, so that no document is
    read without its beginning.
    """
    ids: list[int] = []
    weights: list[float] = []
    kinds: list[int] = []
    for kind, segments in islice(corpus.mixed_stream(split, start), count):
        document_ids, document_weights = encode_document(tokenizer, segments)
        ids += document_ids
        weights += document_weights
        kinds += [corpus.KINDS.index(kind)] * len(document_ids)
        if len(ids) > CONTEXT:
            yield ids[:CONTEXT + 1], weights[:CONTEXT + 1], kinds[:CONTEXT + 1]
            ids, weights, kinds = [], [], []


def training_chunk(tokenizer_file: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chunk `index` of the training stream: ids, loss weights and kinds, each [row, CONTEXT + 1]; a pure function."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rows = packed_rows(tokenizer, "train", index * DOCUMENTS_PER_CHUNK, DOCUMENTS_PER_CHUNK)
    ids, weights, kinds = zip(*rows, strict=True)
    return np.array(ids, np.int64), np.array(weights, np.float32), np.array(kinds, np.int64)
