"""Write what the corpus gives the application: `assets/samples/*.jsonl` and `transact/evaluation/probes.json`.

    python assets/model/write_assets.py

Their seeds are those of the splits "calibration", "evaluation" and "probe", so that no training text is among them.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import corpus
import stories

DESCRIPTIONS = {
    "stories": "Which pronoun, name or object fits the story so far; the wrong one is of the same type.",
    "addition": "Sums of two numbers of 1 to 3 digits that no training text holds, column by column, then the answer.",
    "recall": "The value that a list of pairs gave for a key.",
    "brackets": "Close every open bracket, innermost first, and nothing else.",
    "code": "The value of a line in a small Python program.",
}


def last_answer(kind: str, seed: int) -> dict[str, str] | None:
    """A document cut before its last predictable answer; None if that answer is the end of the line alone."""
    segments = corpus.generate_segments(kind, seed)
    if segments[-1][0] == "\n":
        return None
    return {"prompt": "".join(text for text, _ in segments[:-1]), "answer": segments[-1][0]}


def recall_item(seed: int) -> dict[str, str] | None:
    """A list of 4 or more pairs and some queries, the last for a key not asked before; None for a shorter list.

    Lists that are asked in their own order are left out: counting would answer those.
    """
    listed, queries = corpus.generate("recall", seed).split("\nwhat:")
    size = listed.count(",")
    if size < 4 or queries.startswith(listed.removeprefix("pairs:")):
        return None
    asked = queries.split(",")[: random.Random(f"recall probe:{seed}").randint(1, size)]
    key, value, _ = asked[-1].split()
    prompt = ",".join([*asked[:-1], f" {key}"])
    return {"prompt": f"{listed}\nwhat:{prompt}", "answer": f" {value} {key},"}


def addition_item(seed: int) -> dict[str, str]:
    """Two worked sums, then a held-out one to solve."""
    rng = random.Random(f"addition probe:{seed}")
    while not corpus.is_held_out(*(pair := (corpus.operand(rng), corpus.operand(rng)))):
        pass
    shown = "".join(text for text, _ in corpus.generate_segments("addition", seed)[:4])
    return {"prompt": f"{shown}{pair[0]}+{pair[1]}:", "answer": corpus.addition_answer(*pair)}


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
    return {"prompt": text[: place.start()], "good": " " + place[1], "bad": " " + good_words[place[1]]}


def probes(items_per_kind: int) -> dict[str, list[dict[str, object]]]:
    """The probe file: for each kind exact-match or minimal-pair items from seeds of their own."""
    makers = {"stories": story_item, "addition": addition_item, "recall": recall_item}
    result = []
    for kind in corpus.KINDS:
        make = makers.get(kind, lambda seed, kind=kind: last_answer(kind, seed))
        items: list[dict[str, str]] = []
        index = 0
        while len(items) < items_per_kind:
            item = make(corpus.document_seed("probe", index))
            index += 1
            if item is not None and item not in items:
                items.append(item)
        kind_of_test = "minimal_pair" if kind == "stories" else "exact_match"
        result.append({"kind": kind, "description": DESCRIPTIONS[kind], "type": kind_of_test, "items": items})
    return {"probes": result}


def write_samples(folder: Path, split: str, prefix: str, count: int) -> None:
    """`count` texts of each kind, and as many mixed ones, one JSON object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    mixed = corpus.mixed_stream(split, start=corpus.SEEDS_PER_SPLIT // 2)
    seeds = [corpus.document_seed(split, index) for index in range(count)]
    texts = {kind: [corpus.generate(kind, seed) for seed in seeds] for kind in corpus.KINDS}
    texts["mixed"] = ["".join(text for text, _ in next(mixed)[1]) for _ in range(count)]
    for kind, documents in texts.items():
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        (folder / f"{prefix}{kind}.jsonl").write_text(lines, encoding="utf-8")


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description="Write the sample texts and the probes of the bundled model.")
    parser.add_argument("--samples", type=Path, default=root / "assets" / "samples", help="folder of the sample files")
    parser.add_argument(
        "--probes", type=Path, default=root / "transact" / "evaluation" / "probes.json", help="the probe file"
    )
    parser.add_argument("--calibration-count", type=int, default=240, help="calibration texts per kind")
    parser.add_argument("--evaluation-count", type=int, default=100, help="evaluation texts per kind")
    parser.add_argument("--items", type=int, default=120, help="probe items per kind")
    arguments = parser.parse_args()
    write_samples(arguments.samples, "calibration", "", arguments.calibration_count)
    write_samples(arguments.samples, "evaluation", "evaluation_", arguments.evaluation_count)
    arguments.probes.write_text(json.dumps(probes(arguments.items), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
