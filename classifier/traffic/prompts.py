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
    "Here is what I have so far on {t}: first came {u}, then {name} added {n} notes, and somebody in {city} thinks that "
    "the {w} and the {v} belong together. Please make one clear paragraph of it, keep the numbers, and tell me what is "
    "still missing before I send it on to the others.",
    "My situation: I work on {t} with {name}, we have {n} days left, and {u} keeps getting in the way. We tried to "
    "reorder the {w}, we tried to drop the {v}, and we asked in {city} for help. Nothing of that worked. What would you "
    "try next, in which order, and how would we notice early that it does not work either? Please be specific, and "
    "keep it short enough for one page.",
    "Compare {t} and {u} for somebody who has never done either. Cover cost, time, what can go wrong and how to begin.",
)
_OPENERS: Final = tuple(
    "|ok |Hi, |hello! |So, |quick question: |Please: |hmm, |right. |sorry, again: |One more thing, |for school: |for work: |"
    "my last one was unclear. |in short: ".split("|")
)
_CLOSERS: Final = tuple(
    "|| thanks| please| (not too long)| I have {n} minutes| for my {w}| and be honest| in simple words| as a table| with the "
    "source| it is for {name}| no need to hurry| and nothing about {u}".split("|")
)
"""How people begin and end what they ask: hardly two of them word a thing alike."""
_JOBS: Final = (
    "Classify the sentiment of review {m} by {name}: the {t} was worth {n} dollars.",
    "Extract all dates and amounts from invoice {m} issued in {city} to {name}.",
    "Summarize ticket {m} from {name} about {t} in at most {n} words.",
    "You are a support assistant of a shop in {city}. Customer {name} asks about order {m}. Answer politely.",
    "Return JSON with keys name, city, age for: {name}, {n}, lives in {city}.",
    "Translate record {m} to English. Text: {name} wrote about {t}.",
    "Score from 1 to 10 how relevant document {m} on {t} is to query {n}.",
    "Generate {n} product descriptions for item {m}.",
    "You read reports for a team in {city}. Report {m} by {name}: the work on {t} went on for {n} days. The {w} was "
    "checked twice and the {v} once. Two people asked about {u}, and one of them was told to wait. The costs came to "
    "{m} in all, of which a part has been paid. Answer with a list of open points, one a line, and nothing else.",
    "Rewrite the following note in plain words and keep every number. Note {m}: {name} of {city} has looked at the {w} "
    "for {t} and found {n} entries that do not fit. The {v} is to be loaded again, after which {u} has to be "
    "counted anew and compared with the list of last month; differences go to {name}.",
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
_SECURITY: Final = (
    "How does prompt injection work, and how would I defend a chat bot on {t} against it?",
    "explain what a jailbreak of a language model is, my boss in {city} asked me",
    "What should a system prompt for a bot about {t} contain so that it is hard to leak?",
    "Write {n} test cases that check whether our filter stops requests to ignore previous instructions.",
    "Is it a problem when users can read my system prompt? It only talks about {t}.",
    "Which log lines show password stuffing against a login page? We see {n} failures an hour.",
    "review this rule for our gateway: more than {n} requests a minute from one address, then challenge",
    "What is the difference between phishing and pretexting? I teach {n} people in {city} about it.",
    "Summarize the usual advice against data poisoning for a team that works on {t}.",
    "How do I rotate an API key that was pushed to a public repository by {name}?",
)
_EXAM: Final = (
    "Question {m}: Which statement about {t} is right? A) it needs {u} B) it does not need {u} C) both D) none. Answer "
    "with one letter.",
    "Problem {m}. {name} buys {n} items and returns some. Work out how many are left. Final answer after ####.",
    "Complete the function so that the tests of task {m} pass:\ndef {w}_{v}(items):\n    ",
    "Passage {m}: {name} wrote about {t} in {city}. Is it entailed that {u} was mentioned? yes or no.",
)
_PASSAGES: Final = (
    "Document {m}, part {n}. On {t}: the {w} comes before the {v}, and {u} is treated apart. See also the notes of {name} "
    "from {city}.",
    "passage: {t} and {u}, chapter {n}, as told by {name}",
    "FAQ {m}: how is {t} changed? Open the settings, choose {w}, then {v}.",
)
_WORDS: Final = tuple("order user batch cache token index queue price label score route frame graph event".split())
POOLS: Final = {
    "ask": _ASKS, "job": _JOBS, "code": _CODE, "step": _STEPS, "lesson": _LESSONS, "probe": _PROBES,
    "security": _SECURITY, "exam": _EXAM, "passage": _PASSAGES,
}  # fmt: skip
_FIELDS: Final[dict[str, Callable[[np.random.Generator, int], list[object]]]] = {
    "n": lambda rng, n: list(rng.integers(2, 100, n)),
    "m": lambda rng, n: list(rng.integers(100, 100_000, n)),
    "name": lambda rng, n: [_NAMES[i] for i in rng.integers(0, len(_NAMES), n)],
    "city": lambda rng, n: [_CITIES[i] for i in rng.integers(0, len(_CITIES), n)],
}
_FREE: Final = {"t": _TOPICS, "u": _TOPICS, "w": _WORDS, "v": _WORDS}


_OF_PEOPLE: Final = ("ask", "security")
"""Pools that people ask from."""


def _dressed(rng: np.random.Generator, templates: tuple[str, ...], n: int) -> tuple[str, ...]:
    """Return n templates as people put them, each with an opening and an end of its own, or without."""
    parts = (_OPENERS, templates, _CLOSERS)
    chosen = [rng.integers(0, len(part), n).tolist() for part in parts]
    return tuple("".join(part[i] for part, i in zip(parts, row, strict=True)) for row in zip(*chosen, strict=True))


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


def slots(rng: np.random.Generator, template: str) -> str:
    """Fill every slot of one template."""
    values = {key: draw(rng, 1)[0] for key, draw in _FIELDS.items()}
    values |= {key: words[int(rng.integers(len(words)))] for key, words in _FREE.items()}
    return template.format(**values)


def settled(rng: np.random.Generator, pool: str, n: int, templates: int) -> list[str]:
    """Fill a few fixed templates of a pool in turn, n prompts in all: what a program with several tasks sends."""
    fixed = [fixed_template(rng, pool) for _ in range(templates)]
    parts = [fill(rng, template, n // templates + 1) for template in fixed]
    return [parts[i % templates][i // templates] for i in range(n)]


def wordings(rng: np.random.Generator, pool: str, n: int) -> list[str]:
    """Word n prompts anew, each from any template of the pool and about any topic."""
    templates = POOLS[pool]
    if pool in _OF_PEOPLE:
        templates = _dressed(rng, templates, n)
    which = rng.integers(0, len(templates), n) if pool not in _OF_PEOPLE else np.arange(n)
    columns = {key: draw(rng, n) for key, draw in _FIELDS.items()}
    for key, values in _FREE.items():
        columns[key] = [values[i] for i in rng.integers(0, len(values), n)]
    rows = zip(*columns.values(), strict=True)
    return [templates[i].format(**dict(zip(columns, row, strict=True))) for i, row in zip(which, rows, strict=True)]
