"""The report of `save` on a checkpoint that it wrote."""

from dataclasses import dataclass

from transact.export.proof import Proof


@dataclass(frozen=True)
class SaveReport:
    """What was written.

    `model_class` is the stock class that loads it; `padded` says whether zeros fill layers up to the widest;
    `compact`: whether sizes that stock classes lack are in the files as they are, which only this project loads today;
    `parameters_lost` and `kv_bytes_per_token_lost` (16-bit) are the savings that padding gave back; `notes`
    explains in words; `proof` is the comparison with a fresh process, None without `prove`.
    """

    directory: str
    model_class: str
    parameters_written: int
    parameters_lost: int
    kv_bytes_per_token_lost: int
    padded: bool
    notes: tuple[str, ...]
    compact: bool = False
    proof: Proof | None = None
