"""Hostile values for every surface: spoiled bytes, spoiled JSON, and what no form would send.

Deterministic: the same inputs in every run, so that CI fails for a change and never by chance.
"""

import copy
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.tiers import inputs

INPUTS = {
    "plans": 2500, "links": 1500, "savepoints": 150,
    "configurations": 700, "weights": 1200, "indices": 300, "tokenizers": 350,
    "uploads": 2400, "endpoints": 1300, "http": 60,
}  # fmt: skip
"""How many inputs each surface gets in `make test-all`; 10,000 in all at least."""


def fuzzing(surface: str, share: float = 1.0):
    """Settings for a test that takes `share` of a surface's inputs, or of the tier's part of them."""
    return settings(
        max_examples=inputs(INPUTS[surface] * share),
        derandomize=True, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


ODD_NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")]
)
ODD_TEXTS = st.sampled_from(
    ["", " ", "\0", "\ud800", "x" * 3000, "../../etc/passwd", "/etc", "~root", "a/b", "bundled", "http://x.y", "%s{0}",
     "<script>", "=1+1", "\u202e", "'; --", '"""', "𝕏", "None", "nan", "1e999", "mixed", "transact", "__class__"]
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), ODD_NUMBERS, ODD_TEXTS, st.text(max_size=12), st.integers(-5, 300))
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(ODD_TEXTS, st.text(max_size=6)), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def spoiled_bytes(draw, whole: bytes, *, within: int | None = None) -> bytes:
    """`whole` with one to five edits, in its first `within` bytes where that is given."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        if not data:
            break
        at = draw(st.integers(0, min(len(data), within or len(data)) - 1))
        edit = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "end", "zero"]))
        if edit == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif edit == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif edit == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif edit == "repeat":
            data[at:at] = data[at : at + 60] * draw(st.integers(1, 4))
        elif edit == "zero":
            data[at : at + 8] = bytes(8)
        else:
            del data[at:]
    return bytes(data)


@st.composite
def spoiled_json(draw, value) -> str:
    """JSON of `value` with one to four of its parts replaced, removed, renamed or doubled."""
    holder = {"": copy.deepcopy(value)}
    for _ in range(draw(st.integers(1, 4))):
        parent, key = _somewhere(draw, holder)
        edit = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        if edit == "replace" or parent is holder:
            parent[key] = draw(JUNK)
        elif edit == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(ODD_TEXTS)] = parent[key] if edit == "double" else parent.pop(key)
        else:
            parent.insert(key, copy.deepcopy(parent[key]))
    return json.dumps(holder[""])


def _somewhere(draw, holder):
    """A container and a key of it, reached by walking down for a few steps."""
    parent, key = holder, ""
    for _ in range(draw(st.integers(0, 6))):
        inner = parent[key]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        if not keys:
            break
        parent, key = inner, keys[draw(st.integers(0, len(keys) - 1))]
    return parent, key


def one_sentence(error: BaseException) -> None:
    """What a visitor may see of an error."""
    said = str(error)
    assert said.strip() and "\n" not in said and "Traceback" not in said, said
    assert "Something failed that should not" not in said, said
