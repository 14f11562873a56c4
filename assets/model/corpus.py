"""The text that the bundled model learns: five kinds, written by seeded generators.

`generate(kind, seed)` is pure: the same arguments give the same text on any machine. Seeds of training, calibration
samples, evaluation samples and probes come from `document_seed`, whose ranges never meet. `write_assets.py`
makes the sample files and the probes of it. Standard library only.

A generator returns segments, (text, predictable): text that no reader could predict (operands, random keys, opening
brackets) is marked, so that training may weight its loss down and spend its capacity on what can be learned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import stories

Segments = list[tuple[str, bool]]

KINDS = ("stories", "addition", "recall", "brackets", "code")
SPLITS = ("train", "calibration", "evaluation", "probe")
SEEDS_PER_SPLIT = 1 << 40

# Documents of each kind per hundred of the training stream; stories and code are learned last and get most.
TRAINING_SHARES = {"stories": 38, "addition": 8, "recall": 16, "brackets": 8, "code": 30}

KEYS = ["lamp", "cup", "door", "hat", "bird", "tree", "fish", "road"]
VALUES = ["red", "blue", "green", "gold", "pink", "seven", "ten", "north"]
RECALL_SIZES = (2, 3, 4, 5, 6)
RECALL_QUERIES = 16
BRACKET_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
MAX_DEPTH = 7
FUNCTIONS = ["f", "g", "h"]
VARIABLES = ["a", "b", "c", "d", "n", "m", "k", "t", "u", "w"]


def document_seed(split: str, index: int) -> int:
    """Seed number `index` of a split; splits never share one."""
    if not 0 <= index < SEEDS_PER_SPLIT:
        raise ValueError(f"index is {index}; allowed are 0 to {SEEDS_PER_SPLIT - 1}.")
    return SPLITS.index(split) * SEEDS_PER_SPLIT + index


def is_held_out(left: int, right: int) -> bool:
    """Whether a sum is kept for the probe: about 1 in 29 of all pairs, in no training, sample or evaluation text."""
    return (31 * left + 17 * right) % 29 == 0


def addition_answer(left: int, right: int) -> str:
    """The worked form: column sums from the right, the carry last, then the answer; `7+5=12,4+8+1=13,3+2+1=6;632`."""
    columns, carry = [], 0
    digits_left, digits_right = str(left)[::-1], str(right)[::-1]
    for position in range(max(len(digits_left), len(digits_right))):
        terms = [int(digits[position]) for digits in (digits_left, digits_right) if position < len(digits)]
        terms += [1] if carry else []
        columns.append(f"{'+'.join(map(str, terms))}={sum(terms)}")
        carry = sum(terms) // 10
    return f"{','.join(columns)};{left + right}\n"


def operand(rng: random.Random) -> int:
    """A number of 1 to 3 digits, longer ones more often, for there are more of them to learn."""
    digits = rng.choice((1, 2, 2, 3, 3, 3))
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def addition(rng: random.Random) -> Segments:
    segments: Segments = []
    while len(segments) < 2 * 6:
        left, right = operand(rng), operand(rng)
        if not is_held_out(left, right):
            segments += [(f"{left}+{right}:", False), (addition_answer(left, right), True)]
    return segments


def recall(rng: random.Random) -> Segments:
    """A list of pairs, then its pairs again: each once, in the same or another order, then some more at random.

    A pair is written key value key: the echo makes a model keep the key at the place of its value, which looking a
    value up by its key builds on. Short lists are learned first. There are `RECALL_QUERIES` in all.
    """
    keys = rng.sample(KEYS, rng.choice(RECALL_SIZES))
    table = {key: rng.choice(VALUES) for key in keys}
    segments: Segments = [("pairs:", True)]
    for key, value in table.items():
        segments += [(f" {key} {value}", False), (f" {key},", True)]
    segments.append(("\nwhat:", True))
    queries = keys if rng.random() < 0.5 else rng.sample(keys, len(keys))
    for key in [*queries, *rng.choices(keys, k=RECALL_QUERIES - len(keys))]:
        segments += [(f" {key}", False), (f" {table[key]} {key},", True)]
    return [*segments, ("\n", True)]


def bracket_line(rng: random.Random) -> Segments:
    """A walk that opens and closes at will, then a bar, then whatever is still open is closed, innermost first."""
    segments: Segments = []
    open_brackets: list[str] = []
    for _ in range(rng.randint(4, 16)):
        may_open = len(open_brackets) < MAX_DEPTH
        if may_open and (not open_brackets or rng.random() < 0.6):
            open_brackets.append(rng.choice(sorted(BRACKET_PAIRS)))
            segments.append((open_brackets[-1], False))
        else:
            segments.append((BRACKET_PAIRS[open_brackets.pop()], True))
    closing = "".join(BRACKET_PAIRS[bracket] for bracket in reversed(open_brackets))
    return [*segments, ("|", False), (closing + "\n", True)]


def brackets(rng: random.Random) -> Segments:
    return [segment for _ in range(8) for segment in bracket_line(rng)]


def code_line(rng: random.Random, values: dict[str, int], function: tuple[str, str, int]) -> tuple[str, str] | None:
    """One line and the comment that works it out, from the values so far; None if a value leaves 0 to 9."""
    source, other = rng.sample(sorted(values), 2)
    left, right = values[source], values[other]
    action = rng.choice(("assign", "assign", "print", "call", "choose"))
    if action == "print":
        return f"print({source})", f"{left}"
    if action == "choose":
        name, choose = rng.choice((("max", max), ("min", min)))
        return f"print({name}({source}, {other}))", f"{name}({left}, {right}) = {choose(left, right)}"
    if action == "call":
        name, sign, right = function
        line = f"print({name}({source}))"
    else:
        target = rng.choice([name for name in VARIABLES if name not in values])
        sign = rng.choice("+-")
        if rng.random() < 0.5:
            right = rng.randint(0, 9)
            other = str(right)
        line = f"{target} = {source} {sign} {other}"
    result = left + right if sign == "+" else left - right
    if not 0 <= result <= 9:
        return None
    if action == "call":
        return line, f"{left} {sign} {right} = {result}"
    values[target] = result
    return line, f"{left} {sign} {right}, {target} = {result}"


def code(rng: random.Random) -> Segments:
    """Valid Python in which a comment works out every line; all values are single digits, no variable changes."""
    values = {name: rng.randint(0, 9) for name in rng.sample(VARIABLES, 2)}
    segments: Segments = [(f"{name} = {value}\n", False) for name, value in values.items()]
    function = (rng.choice(FUNCTIONS), rng.choice("+-"), rng.randint(1, 4))
    segments.append(("def {}(x):\n    return x {} {}\n".format(*function), False))
    lines_left = rng.randint(5, 7)
    while lines_left:
        if made := code_line(rng, values, function):
            segments += [(made[0], False), (f"  # {made[1]}\n", True)]
            lines_left -= 1
    return segments


def story(rng: random.Random) -> Segments:
    return [(stories.story(rng)[0] + "\n", True)]


GENERATORS: dict[str, Callable[[random.Random], Segments]] = {
    "stories": story,
    "addition": addition,
    "recall": recall,
    "brackets": brackets,
    "code": code,
}


def generate_segments(kind: str, seed: int) -> Segments:
    """The segments of one document: (text, predictable)."""
    if kind not in GENERATORS:
        raise ValueError(f"kind is {kind!r}; allowed are {', '.join(KINDS)}.")
    return GENERATORS[kind](random.Random(f"{kind}:{seed}"))


def generate(kind: str, seed: int) -> str:
    """One document of a kind; the same arguments always give the same text."""
    return "".join(text for text, _ in generate_segments(kind, seed))


def mixed_stream(split: str, start: int = 0) -> Iterator[tuple[str, Segments]]:
    """Endless (kind, segments), kinds drawn by `TRAINING_SHARES`; document `i` does not depend on `start`."""
    kinds, shares = zip(*TRAINING_SHARES.items(), strict=True)
    index = start
    while True:
        seed = document_seed(split, index)
        kind = random.Random(f"mixed:{seed}").choices(kinds, shares)[0]
        yield kind, generate_segments(kind, seed)
        index += 1
