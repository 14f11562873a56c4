"""From the corpus to rows of tokens: the tokenizer, and packed training rows with what each token belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

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
# One row in four is read as one long text: windows cut from a text without regard to its documents are not strange
# to the model then. In the others a list of pairs in one document never contradicts that of another, which it did
# not learn to look up until then.
OPEN_ROW_EVERY = 4


class Rows(NamedTuple):
    """Packed tokens, each array [row, CONTEXT + 1]."""

    ids: np.ndarray  # int64
    weights: np.ndarray  # float32, of each token's loss
    kinds: np.ndarray  # int64, places in `corpus.KINDS`
    documents: np.ndarray  # int64; a token sees those of its own number only


def build_tokenizer(num_documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the corpus: every UTF-8 text goes in; a token a digit and a token a bracket."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[()\[\]{}<>|]"), behavior="isolated"),
            pre_tokenizers.Split(Regex(r" ?[0-9]"), behavior="isolated"),  # a space may go with the first digit
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    documents = islice(corpus.mixed_stream("train"), num_documents)
    tokenizer.train_from_iterator(("".join(text for text, _ in segments) for _, segments in documents), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode_document(tokenizer: Tokenizer, segments: corpus.Segments) -> tuple[list[int], list[float]]:
    """Ids of BOS + text + EOS, and the loss weight of each token: that of the segment in which the token ends."""
    encoding = tokenizer.encode("".join(text for text, _ in segments))
    weights = [
        weight
        for text, predictable in segments
        for weight in [1.0 if predictable else UNPREDICTABLE_WEIGHT] * len(text)
    ]
    token_weights = [weights[end - 1] for _, end in encoding.offsets[1:]]  # the first token is BOS, which has no text
    return [*encoding.ids, EOS_ID], [1.0, *token_weights, 1.0]


def packed_rows(tokenizer: Tokenizer, split: str, start: int, count: int) -> Iterator[list[tuple]]:
    """Rows of CONTEXT + 1 tokens from documents `start` to `start + count`: (id, loss weight, kind, document) each.

    Every row begins with a whole document; the last one in it is cut, and its rest dropped, so that no document is
    read without its beginning.
    """
    row: list[tuple] = []
    for document, (kind, segments) in enumerate(islice(corpus.mixed_stream(split, start), count)):
        ids, weights = encode_document(tokenizer, segments)
        row += [(*token, corpus.KINDS.index(kind), document) for token in zip(ids, weights, strict=True)]
        if len(row) > CONTEXT:
            yield row[: CONTEXT + 1]
            row = []


def training_chunk(tokenizer_file: Path, index: int) -> Rows:
    """Chunk `index` of the training stream; a pure function."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rows = list(packed_rows(tokenizer, "train", index * DOCUMENTS_PER_CHUNK, DOCUMENTS_PER_CHUNK))
    ids, weights, kinds, documents = np.moveaxis(np.array(rows), -1, 0)
    documents[::OPEN_ROW_EVERY] = 0
    return Rows(ids.astype(np.int64), weights.astype(np.float32), kinds.astype(np.int64), documents.astype(np.int64))
