"""Children's stories whose names, pronouns and objects agree from the first sentence to the last.

The grammar is data, `stories.json`: word lists, openings and plots. A plot is a list of beats, each with several
wordings (an empty one makes the beat optional), and may bring word lists of its own, which win over the common ones.
The cast (who, with which pronouns, which object, where) is drawn once, and every sentence reads from it. Fields:

    {n} the hero, with {he} {He} {his} {His} {him}; {m} the friend, with {fhe} {fHe} {fhis} {fhim}
    {ad} the hero's grown-up, with {ahe} {aHe} {ahis}; {kid}, {fkid} girl or boy
    {o} the object, {c} its colour, {adj} its look; {at_place} the place with its preposition; the rest: word lists

Standard library only.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

GRAMMAR = json.loads(Path(__file__).with_name("stories.json").read_text(encoding="utf-8"))
GIRLS, BOYS, OBJECTS = GRAMMAR["girls"], GRAMMAR["boys"], GRAMMAR["objects"]
PRONOUNS = {"girl": ("she", "her", "her"), "boy": ("he", "his", "him")}
GROWN_UPS = {"mom": "girl", "grandma": "girl", "aunt": "girl", "dad": "boy", "grandpa": "boy", "uncle": "boy"}
PLACES_AT = {"beach", "farm", "school", "market", "playground"}  # one is in the others
STRANGERS = {"new_kid"}  # plots in which hero and friend do not know each other at first


def cast(rng: random.Random, own_words: dict[str, list[str]]) -> dict[str, str]:
    """Draw the people and things of one story: the value of every field."""
    words = {"o": OBJECTS, **GRAMMAR["words"], **own_words}
    people = [(name, "girl") for name in GIRLS] + [(name, "boy") for name in BOYS]
    (hero, kid), (friend, fkid) = rng.sample(people, 2)
    grown_up = rng.choice(sorted(GROWN_UPS))
    fields = {field: rng.choice(choices) for field, choices in words.items()}
    fields |= {"n": hero, "kid": kid, "m": friend, "fkid": fkid, "ad": grown_up}
    for prefix, gender in (("", kid), ("f", fkid), ("a", GROWN_UPS[grown_up])):
        for role, word in zip(("he", "his", "him"), PRONOUNS[gender], strict=True):
            fields[prefix + role] = word
            fields[prefix + role.capitalize()] = word.capitalize()
    fields["at_place"] = f"{'at' if fields['place'] in PLACES_AT else 'in'} the {fields['place']}"
    return fields


def story(rng: random.Random) -> tuple[str, dict[str, str]]:
    """One story and its cast."""
    name = rng.choice(sorted(GRAMMAR["plots"]))
    plot = GRAMMAR["plots"][name]
    openings = [opening for opening in GRAMMAR["openings"] if name not in STRANGERS or "{m}" not in opening]
    fields = cast(rng, plot["words"])
    wordings = [rng.choice(openings), *(rng.choice(beat) for beat in plot["beats"]), rng.choice(["{end}", ""])]
    text = " ".join(wording for wording in wordings if wording)
    while "{" in text:  # a field may hold fields of its own
        text = text.format_map(fields)
    return text, fields
