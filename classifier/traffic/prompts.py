"""Short made-up prompts. Numbers and names vary inside a template, so that hashing templates means something.

People word each request anew; programs fill one template over and over; so do attackers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

_NAMES: Final = tuple("Anna Bogdan Chen Diego Emma Farid Grace Hana Ivan Jonas Keiko Lena Marco Nadia Omar".split())
_CITIES: Final = tuple("Berlin Lagos Lima Osaka Paris Quito Riga Seoul Tunis Vienna Warsaw Zagreb".split())
_TOPICS: Final = tuple(
    (
        "a sourdough starter|compound interest|the french revolution|sorting algorithms|a cover letter|knee pain|"
        "a two week trip|docker networking|my thesis outline|tax deductions|a birthday speech|plant watering|sql joins|"
        "photosynthesis|a rental contract|guitar chords|vector databases|a marathon plan|quantum tunnelling|bike gears|"
        "a late invoice|kubernetes probes|a haiku|matrix inversion|job interviews|python decorators|a bedtime story|"
        "solar panels|the krebs cycle|a return policy|regular expressions|meal prep|a landing page|rust lifetimes|"
        "mortgage rates|a dungeon map|speech therapy|gradient descent|garden pests|an apology mail"
    ).split("|")
)
_ASKS: Final = (
    "Can you explain {t} to me like I am new to it?",
    "help me with {t} please, I tried for {n} hours",
    "Write {n} bullet points about {t}.",
    "what is the difference between {t} and {u}?",
    "I need a short text on {t} for {name}, max {n} words",
    "Is it true that {t} has something to do with {u}? My friend from {city} says so.",
    "continue",
    "thanks! now make it about {u} instead",
    "Give me an example of {t} with numbers like {n} and {m}",
    "that did not work, it still says error {n} when I do {t}",
    "Translate to German: we talked about {t} with {name} in {city}",
    "plan {t} for {n} people, and mind {u}",
)
_JOBS: Final = (
    "Classify the sentiment of review {m} by {name}: the {t} was worth {n} dollars.",
    "Extract all dates and amounts from invoice {m} issued in {city} to {name}.",
    "Summarize ticket {m} from {name} about {t} in at most {n} words.",
    "You are a support assistant of a shop in {city}. Customer {name} asks about order {m}. Answer politely.",
    "Return JSON with keys name, city, age for: {name}, {n}, lives in {city}.",
    "Translate record {m} to English. Text: {name} wrote about {t}.",
    "Score from 1 to 10 how relevant document {m} on {t} is to query {n}.",
    "Generate {n} product descriptions for item {m}.",
)
_CODE: Final = (
    "# file {m}.py line {n}\ndef handle_{w}(request):\n    ",
    "Complete the function after line {n}: const {w} = async (item) => {{",
    "Fix the failing test test_{w} in module {m}; expected {n}.",
    "Explain the selected code: for {w} in rows: total += {w}.{v}",
)
_STEPS: Final = (
    "Thought: I should look up {w}. Action: search[{w} {n}]",
    "Observation: tool returned {n} rows for {w}. Decide the next step.",
    "Tool result {m}: ok. Continue with the plan, step {n}.",
)
_LESSONS: Final = (
    "Solve step by step and show all reasoning: if {name} has {n} apples and gives away {m}, how many remain?",
    "Explain in depth, with every intermediate step, the proof of theorem {n} on {t}.",
    "Write a complete, well documented program for task {m}: {t}. Think aloud before each function.",
    "Give {n} question and answer pairs about {t}, each with a full chain of reasoning.",
    "Rate the following answer on rubric {n} and justify the grade: answer {m} about {t}.",
)
_PROBES: Final = (
    "How many states are there in the United States? {n}",
    "hi {n}",
    "test",
    "Say ok {n}",
    "What model are you? {n}",
)
_WORDS: Final = tuple("order user batch cache token index queue price label score route frame graph event".split())
POOLS: Final = {
    "ask": _ASKS, "job": _JOBS, "code": _CODE, "step": _STEPS, "lesson": _LESSONS, "probe": _PROBES
}  # fmt: skip
_FIELDS: Final[dict[str, Callable[[np.random.Generator, int], list[object]]]] = {
    "n": lambda rng, n: list(rng.integers(2, 100, n)),
    "m": lambda rng, n: list(rng.integers(100, 100_000, n)),
    "name": lambda rng, n: [_NAMES[i] for i in rng.integers(0, len(_NAMES), n)],
    "city": lambda rng, n: [_CITIES[i] for i in rng.integers(0, len(_CITIES), n)],
}
_FREE: Final = {"t": _TOPICS, "u": _TOPICS, "w": _WORDS, "v": _WORDS}


def fixed_template(rng: np.random.Generator, pool: str) -> str:
    """Return one template of a pool with its free words settled, so that only numbers and names still vary."""
    template = POOLS[pool][int(rng.integers(len(POOLS[pool])))]
    words = {key: values[int(rng.integers(len(values)))] for key, values in _FREE.items()}
    kept = {key: f"{{{key}}}" for key in _FIELDS}
    settled = template.replace("{{", "\0").replace("}}", "\1").format(**words, **kept)
    return settled.replace("\0", "{{").replace("\1", "}}")


def fill(rng: np.random.Generator, template: str, n: int) -> list[str]:
    """Fill a settled template n times with numbers and names."""
    columns = {key: draw(rng, n) for key, draw in _FIELDS.items() if f"{{{key}}}" in template}
    if not columns:
        return [template.format()] * n
    return [template.format(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def wordings(rng: np.random.Generator, pool: str, n: int) -> list[str]:
    """Word n prompts anew, each from any template of the pool and about any topic."""
    templates = POOLS[pool]
    which = rng.integers(0, len(templates), n)
    columns = {key: draw(rng, n) for key, draw in _FIELDS.items()}
    for key, values in _FREE.items():
        columns[key] = [values[i] for i in rng.integers(0, len(values), n)]
    rows = zip(*columns.values(), strict=True)
    return [templates[i].format(**dict(zip(columns, row, strict=True))) for i, row in zip(which, rows, strict=True)]
