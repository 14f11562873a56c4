"""What the dense model predicts on a text, and how far a pruned one is from it."""

import torch

from transact.models.chunked_logits import log_probabilities, output_head, row_blocks, summed_divergence
from transact.models.loaded_model import Batch, LoadedModel
from transact.observing.gradients import predictions
from transact.text.tokens import TokenSet


class DensePredictions:
    """The dense model's predictions on one text, kept as the hidden states that its output head reads.

    `hidden`: [row, hidden] of every batch, for its positions that predict.
    """

    def __init__(self, loaded: LoadedModel, tokens: TokenSet):
        self.loaded, self.tokens = loaded, tokens
        self.head = output_head(loaded)
        with torch.no_grad():
            self.hidden = [predicting_hidden(loaded, batch, rows) for batch, rows in predictions(loaded, tokens)]

    @torch.no_grad()
    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """[row, hidden] -> [row, vocabulary]"""
        return log_probabilities(self.head(hidden))


def divergence(pruned: LoadedModel, dense: DensePredictions) -> float:
    """Mean KL(dense ‖ pruned) of the predictions, nats; infinite where it is NaN."""
    total, head = 0.0, output_head(pruned)
    with torch.inference_mode():
        for (batch, rows), other in zip(predictions(pruned, dense.tokens), dense.hidden, strict=True):
            own = predicting_hidden(pruned, batch, rows)
            total += sum(
                summed_divergence(dense.log_probabilities(other[block]), log_probabilities(head(own[block])))
                for block in row_blocks(len(own), pruned.spec.vocab_size, pruned.dtype)
            )
    return total / dense.tokens.num_predictions if total == total else float("inf")


def predicting_hidden(loaded: LoadedModel, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
    """What the output head reads where a real token is predicted: [row, hidden]"""
    (hidden,) = loaded.final_hidden([batch])
    return hidden[rows]
