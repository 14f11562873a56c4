"""The text that the bundled model learns: five kinds, written by seeded generators.

`generate(kind, seed)` is pure: the same arguments give the same text on any machine. Seeds of training, calibration
samples, evaluation samples and probes come from `document_seed`, whose ranges never meet. Run as a script, this file
writes `assets/samples/*.jsonl` and `transact/probes.json`. Standard library only.

A generator returns segments, (text, predictable): text that no reader could predict (operands, random keys, opening
brackets) is marked, so that training may weight its loss down and spend its capacity on what can be learned.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import stories

Segments = list[tuple[str, bool]]

KINDS = ("stories", "addition", "recall", "brackets", "code")
SPLITS = ("train", "calibration", "evaluation", "probe")
SEEDS_PER_SPLIT = 1 << 40

# Documents of each kind per hundred of the training stream; documents are about equally long.
TRAINING_SHARES = {"stories": 34, "addition": 24, "recall": 10, "brackets": 14, "code": 18}

KEYS = [
    "lamp", "cup", "door", "hat", "bird", "tree", "fish", "road", "ship", "coat", "ring", "book", "star",
    "leaf", "gate", "rope", "bell", "corn", "wolf", "lake", "bear", "seed", "king", "nest", "milk", "sand",
    "hill", "rain",
]
VALUES = [
    "red", "blue", "green", "gold", "gray", "pink", "seven", "ten", "two", "five", "north", "south", "east",
    "west", "soft", "warm", "cold", "long", "tall", "fast", "loud", "dark", "new", "old", "high", "low",
    "good", "wild",
]
BRACKET_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}
MAX_DEPTH = 7
FUNCTIONS = ["f", "g", "h"]
VARIABLES = ["a", "b", "c", "d", "n", "m", "k", "t"]


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
    keys = rng.sample(KEYS, rng.randint(7, 12))
    table = {key: rng.choice(VALUES) for key in keys}
    segments: Segments = [("pairs:", True)]
    for key, value in table.items():
        segments += [(f" {key}", False), (" is", True), (f" {value}", False), (",", True)]
    segments.append(("\n", True))
    for key in rng.sample(keys, len(keys)):
        segments += [(f"what: {key}", False), (f" is {table[key]}\n", True)]
    return segments


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


def combine(rng: random.Random, left: int) -> tuple[str, int, int]:
    """An operator, a right operand and the result; all of them single digits."""
    operator = rng.choice([sign for sign, possible in (("+", left < 9), ("-", left > 0)) if possible])
    right = rng.randint(1, 9 - left if operator == "+" else left)
    return operator, right, left + right if operator == "+" else left - right


def code(rng: random.Random) -> Segments:
    """Valid Python whose comments give the value of the line; every value is a single digit."""
    names = rng.sample(VARIABLES, 4)
    values: dict[str, int] = {}
    segments: Segments = []
    for name in names[:2]:
        values[name] = rng.randint(0, 9)
        segments.append((f"{name} = {values[name]}\n", False))
    function, addend = rng.choice(FUNCTIONS), rng.randint(1, 4)
    operator = rng.choice("+-")
    segments.append((f"def {function}(x):\n    return x {operator} {addend}\n", False))
    lines_left = rng.randint(5, 8)
    while lines_left:
        known = sorted(values)
        source, target = rng.choice(known), rng.choice(names)
        other = rng.choice([name for name in known if name != source])
        action = rng.choice(("assign", "assign", "print", "call", "call", "choose"))
        if action == "assign":
            sign, right, result = combine(rng, values[source])
            same = [name for name in known if values[name] == right and name != source]
            line = f"{target} = {source} {sign} {rng.choice(same) if same else right}"
            values[target] = result
        elif action == "print":
            line, result = f"print({source})", values[source]
        elif action == "choose":
            name, choose = rng.choice((("max", max), ("min", min)))
            line, result = f"print({name}({source}, {other}))", choose(values[source], values[other])
        else:
            line = f"print({function}({source}))"
            result = values[source] + addend if operator == "+" else values[source] - addend
            if not 0 <= result <= 9:
                continue
        segments += [(line, False), (f"  # {result}\n", True)]
        lines_left -= 1
    return segments


def story(rng: random.Random) -> Segments:
    return [(stories.story(rng)[0] + "\n", True)]


GENERATORS: dict[str, Callable[[random.Random], Segments]] = {
    "stories": story, "addition": addition, "recall": recall, "brackets": brackets, "code": code}


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


DESCRIPTIONS = {
    "stories": "Which pronoun, name or object fits the story so far; the wrong one is of the same type.",
    "addition": "Sums of two numbers of 1 to 3 digits that no training text holds, column by column, then the answer.",
    "recall": "The value that a list of pairs gave for a key.",
    "brackets": "Close every open bracket, innermost first, and nothing else.",
    "code": "The value of a line in a small Python program.",
}


def last_answer(kind: str, seed: int) -> dict[str, str] | None:
    """A document cut before its last predictable answer; None if that answer is the end of the line alone."""
    segments = generate_segments(kind, seed)
    if segments[-1][0] == "\n":
        return None
    return {"prompt": "".join(text for text, _ in segments[:-1]), "answer": segments[-1][0]}


def addition_item(seed: int) -> dict[str, str]:
    """Two worked sums, then a held-out one to solve."""
    rng = random.Random(f"addition probe:{seed}")
    while not is_held_out(*(pair := (operand(rng), operand(rng)))):
        pass
    shown = "".join(text for text, _ in generate_segments("addition", seed)[:4])
    return {"prompt": f"{shown}{pair[0]}+{pair[1]}:", "answer": addition_answer(*pair)}


def story_item(seed: int) -> dict[str, str] | None:
    """A story cut before a word that the story so far decides, with a wrong word of the same type; None if it has none.

    Pronouns are asked only where everybody in the story shares one gender, names where the friend is not the subject
    of the question: then the wrong word is wrong for any reader.
    """
    rng = random.Random(f"stories probe:{seed}")
    text, cast = stories.story(random.Random(f"stories:{seed}"))
    wrong = {"he": "she", "she": "he", "his": "her", "him": "her", "her": "his"}
    wanted = rng.choice(("pronoun", "name", "object"))
    if wanted == "pronoun":
        if len({stories.GROWN_UPS[cast["ad"]], cast["kid"], cast["fkid"]}) > 1:
            return None
        pattern, good_words = r" (he|she|his|him|her)\b", wrong
    elif wanted == "name":
        names = stories.GIRLS if cast["kid"] == "girl" else stories.BOYS
        stranger = rng.choice([name for name in names if name not in (cast["n"], cast["m"])])
        pattern, good_words = rf" ({cast['n']})\b", {cast["n"]: stranger}
    else:
        other = rng.choice([thing for thing in stories.OBJECTS if thing not in text])
        pattern, good_words = rf" ({cast['o']})\b", {cast["o"]: other}
    places = [match for match in re.finditer(pattern, text) if match.start() > len(text) // 3]
    if wanted != "pronoun":
        places = [place for place in places if text.count(place[1], 0, place.start()) >= 1]
    if not places:
        return None
    place = rng.choice(places)
    return {"prompt": text[:place.start()], "good": " " + place[1], "bad": " " + good_words[place[1]]}


def probes(items_per_kind: int) -> dict[str, list[dict[str, object]]]:
    """The probe file: for each kind exact-match or minimal-pair items from seeds of their own."""
    makers = {"stories": story_item, "addition": addition_item}
    result = []
    for kind in KINDS:
        make = makers.get(kind, lambda seed, kind=kind: last_answer(kind, seed))
        items: list[dict[str, str]] = []
        index = 0
        while len(items) < items_per_kind:
            item = make(document_seed("probe", index))
            index += 1
            if item is not None and item not in items:
                items.append(item)
        kind_of_test = "minimal_pair" if kind == "stories" else "exact_match"
        result.append({"kind": kind, "description": DESCRIPTIONS[kind], "type": kind_of_test, "items": items})
    return {"probes": result}


def write_samples(folder: Path, split: str, prefix: str, count: int) -> None:
    """`count` texts of each kind, and as many mixed ones, one JSON object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    mixed = mixed_stream(split, start=SEEDS_PER_SPLIT // 2)
    texts = {kind: [generate(kind, document_seed(split, index)) for index in range(count)] for kind in KINDS}
    texts["mixed"] = ["".join(text for text, _ in next(mixed)[1]) for _ in range(count)]
    for kind, documents in texts.items():
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        (folder / f"{prefix}{kind}.jsonl").write_text(lines, encoding="utf-8")


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description="Write the sample texts and the probes of the bundled model.")
    parser.add_argument("--samples", type=Path, default=root / "assets" / "samples", help="folder of the sample files")
    parser.add_argument("--probes", type=Path, default=root / "transact" / "probes.json", help="the probe file")
    parser.add_argument("--calibration-count", type=int, default=240, help="calibration texts per kind")
    parser.add_argument("--evaluation-count", type=int, default=100, help="evaluation texts per kind")
    parser.add_argument("--items", type=int, default=120, help="probe items per kind")
    arguments = parser.parse_args()
    write_samples(arguments.samples, "calibration", "", arguments.calibration_count)
    write_samples(arguments.samples, "evaluation", "evaluation_", arguments.evaluation_count)
    arguments.probes.write_text(json.dumps(probes(arguments.items), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
