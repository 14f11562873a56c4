"""Limits on requests, and checks of values from outside, for the page, the endpoints and links alike.

No visitor can take the machine from the others, and no slip of the finger costs an afternoon.
"""

from collections.abc import Collection

from ui.errors import WrongInput
from ui.server import environment

MAX_SAMPLES, MAX_SEQ_LEN = 4096, 8192
MAX_SCORED_TOKENS = 2**22
"""Sequences × tokens each of a calibration text: 4096 × 1024."""
MAX_MEASURED_TOKENS = 2**20
"""Tokens of an evaluation text."""
MAX_SEED = 2**31 - 1
MAX_SHOTS = 8
"""Cuts of one recovery, as the page's slider has them."""
MAX_COUNT = 10**15
"""Of what has a limit of its own as well, as the tokens of a training: what is above is no count but a slip."""
MAX_MINUTES = 60
"""Of a compression for a size and a time."""
MAX_PROMPT_CHARACTERS = 100_000
MAX_PASTE_CHARACTERS = 2_000_000
MAX_NAME_CHARACTERS = 1_000
"""Names of models, datasets, columns, … and paths."""
MAX_UPLOAD_BYTES = 20_000_000
MAX_UNPACKED_BYTES = 100_000_000
MAX_TEXTS = 500_000
"""Texts of an upload: each takes a few hundred bytes beside its letters and tokens."""
MAX_ESTIMATED_CHARACTERS = 200_000
"""Of a text, what is read to say what all of it would take."""
MAX_COLUMNS = 1_000
MAX_STREAMED_ROWS = 200_000
MAX_STREAMED_CHARACTERS = 20_000_000
MAX_UPLOAD_BODY_BYTES = 32_000_000
"""A whole upload; above what the browser puts around a file, so that one just over the limit gets our sentence."""
MAX_CALL_BYTES = 4 * MAX_PASTE_CHARACTERS + 1_000_000
"""Any other request: the longest text that may be pasted, in the letters that take most bytes, and a form around it."""

RANGES = {
    "num_samples": (1, MAX_SAMPLES),
    "seq_len": (1, MAX_SEQ_LEN),
    "page_seq_len": (2, MAX_SEQ_LEN),
    "seed": (0, MAX_SEED),
    "shots": (1, MAX_SHOTS),
    "tokens": (0, MAX_COUNT),
    "units": (1, 2**31 - 1),
    "index": (0, 2**31 - 1),
}
"""The whole numbers that are taken, both ends included, by what they count: `units` kept of a layer, `index` of a
layer, head or channel. (The page asks for one token more than scripts: none is predicted from the first.)"""


def counted(kind: str, name: str, value) -> int:
    """A whole number in the range of its kind, a key of `RANGES`; raises `WrongInput` for anything else."""
    return whole(name, value, *RANGES[kind])


def whole(name: str, value, low: int, high: int) -> int:
    """A whole number in [low, high]; raises `WrongInput` for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and low <= value <= high and int(value) == value:
        return int(value)
    raise WrongInput(f"{name} is {_shown(value)}; give a whole number from {low:,} to {high:,}.")


def share_removed(name: str, value) -> float:
    """A sparsity in [0, 1); raises `WrongInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise WrongInput(f"The {name} sparsity is {_shown(value)}; it is the share removed, at least 0 and below 1.")
    return float(value)


def share_left(value) -> float:
    """What a limit leaves, in (0, 1]; raises `WrongInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise WrongInput(f"The limit is {_shown(value)}; it is a share of the dense model, above 0 and at most 1.")
    return float(value)


def rate(name: str, value) -> float:
    """A learning rate in (0, 1]; raises `WrongInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise WrongInput(f"{name} is {_shown(value)}; give a number above 0 and up to 1, as 0.001.")
    return float(value)


def minutes(value) -> float:
    """A time in (0, MAX_MINUTES]; raises `WrongInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_MINUTES:
        raise WrongInput(
            f"The time is {_shown(value)}; give minutes above 0 and up to {MAX_MINUTES}. The command line takes more."
        )
    return float(value)


def percent_smaller(value) -> float:
    """The share of the parameters that stays where `value` per cent go; `WrongInput` for what is not between."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100:
        raise WrongInput(f"“Smaller by” is {_shown(value)}; give per cent of all parameters, above 0 and below 100.")
    return 1 - float(value) / 100


def share_held_out(value) -> float:
    """The share that so many per cent are, from none to 90; raises `WrongInput` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 90:
        raise WrongInput(f"“Hold out for measuring” is {_shown(value)}; give per cent of the text, from 0 to 90.")
    return round(float(value) / 100, 6)


def place(name: str, value, count: int) -> int:
    """The nearest of the places 0 to `count` - 1, which a browser may miss; `WrongInput` for what is no number."""
    try:
        return max(0, min(count - 1, round(float(value))))
    except (TypeError, ValueError, OverflowError):
        raise WrongInput(f"{name} is {_shown(value)}, which is no place there; click again.") from None


def one_of(what: str, value, allowed: Collection[str]) -> str:
    """One of the names; raises `WrongInput` for anything else."""
    if isinstance(value, str) and value in allowed:
        return value
    named = value[:80] if isinstance(value, str) else _shown(value)
    raise WrongInput(f"There is no {what} “{named}”; choose one of {', '.join(allowed)}.")


def text(name: str, value, most: int = MAX_PASTE_CHARACTERS) -> str:
    """A text of at most so many characters that UTF-8 can hold; raises `WrongInput` for anything else."""
    if not isinstance(value, str):
        raise WrongInput(f"{name} is {_shown(value)}; give a text.")
    if len(value) > most:
        raise WrongInput(f"{name} has {len(value):,} characters; at most {most:,} are taken. Give less.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongInput(f"{name} holds half a character (a lone surrogate); copy it again as UTF-8.") from None
    return value


def name(what: str, value) -> str:
    """A name or a path, without the spaces around it; raises `WrongInput` as `text` does."""
    return text(what, value, MAX_NAME_CHARACTERS).strip()


def tokens(num_samples: int, seq_len: int) -> None:
    """Raise `WrongInput` where a calibration text would have too many tokens."""
    if num_samples * seq_len > MAX_SCORED_TOKENS:
        raise WrongInput(
            f"{num_samples:,} sequences of {seq_len:,} tokens are {num_samples * seq_len:,}; at most "
            f"{MAX_SCORED_TOKENS:,} are read in a run. Take fewer sequences or shorter ones."
        )


def measured(num_tokens: int) -> None:
    """Raise `WrongInput` where an evaluation text has too many tokens."""
    if num_tokens > MAX_MEASURED_TOKENS:
        raise WrongInput(
            f"The text to measure on has {num_tokens:,} tokens; at most {MAX_MEASURED_TOKENS:,} are taken. Give a part "
            "of it."
        )


def trained(num_tokens: int) -> None:
    """Raise `WrongInput` where a recovery would train on more tokens than the host allows."""
    most = environment.max_trained_tokens()
    if num_tokens > most:
        raise WrongInput(
            f"{num_tokens:,} tokens are to be trained on; here it is {most:,} at most (who runs the page sets "
            f"{environment.TRAINED_TOKENS}). The command line takes any number, and goes on after an interruption."
        )


def _shown(value) -> str:
    """A wrong value, short enough for a sentence."""
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value)[:80] if not isinstance(value, int) or abs(value) < 10**20 else "a number of many digits"
