"""LiteLLM's guardrail, which runs without botsieve installed: it reads a call as the reader of LiteLLM's logs does."""

from __future__ import annotations

import ast
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import serving
from classifier.logs.litellm import prompt_of

GUARDRAIL = Path(serving.__file__).parent / "gateways" / "botsieve_litellm.py"


def function(name: str, **names: Any) -> Any:
    """Return one function of the guardrail; importing the file would need LiteLLM."""
    tree = ast.parse(GUARDRAIL.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    names["Any"] = Any
    exec(compile(ast.Module(found, []), str(GUARDRAIL), "exec"), names)
    return names[name]


TEXT_OF = function("_text")
WORDS = st.sampled_from(["", "hello", "é", "two\nlines"])
CONTENT = st.one_of(
    st.none(), WORDS, st.integers(),
    st.lists(st.one_of(WORDS, st.fixed_dictionaries({}, optional={"type": WORDS, "text": st.one_of(WORDS, st.none())}))),
)  # fmt: skip
MESSAGE = st.one_of(
    WORDS,
    st.none(),
    st.fixed_dictionaries({}, optional={"role": st.sampled_from(["user", "system", None]), "content": CONTENT}),
)


@given(st.one_of(st.none(), WORDS, st.integers(), st.lists(MESSAGE, max_size=5), MESSAGE))
def test_both_find_the_same_prompt(messages: Any) -> None:
    assert TEXT_OF(messages) == prompt_of(messages)


def test_calls_of_one_id_are_all_kept_and_end_one_by_one() -> None:
    keep = function("_keep", OrderedDict=OrderedDict, MOST_OPEN=3, MOST_SAME=4)
    take = function("_take", OrderedDict=OrderedDict)
    held: OrderedDict[str, list[Any]] = OrderedDict()
    for number in range(5):
        keep(held, "mine", number)
    assert [take(held, "mine") for _ in range(5)] == [1, 2, 3, 4, None]
    for number in range(5):
        keep(held, f"call {number}", number)
    assert [take(held, f"call {number}") for number in range(5)] == [None, None, 2, 3, 4]
    assert not held


def test_who_has_a_pass_and_no_room_is_told_when_to_come_again() -> None:
    refusal = function(
        "_refusal", HTTPException=lambda *given: given, _BLOCKED="b", _CHALLENGED="solve", _WAITING="wait"
    )
    challenge = {"url": "/v1/challenge/x", "verify": "/v1/challenge/verify"}
    for more, detail in (({}, "solve"), ({"wait": 17}, "wait")):
        answer = {"id": "1-a", "enforced": "challenge", "challenge": {**challenge, **more}}
        status, told, headers = refusal(answer)
        assert (status, told["detail"], told["challenge"]) == (401, detail, {**challenge, **more})
        assert headers.get("retry-after") == ("17" if more else None)
        assert headers["www-authenticate"] == 'Botsieve challenge="/v1/challenge/x"'
