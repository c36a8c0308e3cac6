"""A solution works once: also twice at the same moment, after a restart, after kill -9, and with a damaged record."""

import base64
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import altcha
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import InputError
from serving.challenge import REFUSALS, TRIES, ChallengeOptions, Challenges, Described, Redeemed, Refused, puzzle, work
from serving.passes import Passes, PassOptions
from tests.service.challenge_site import CLIENT, OTHER, QUICK, SECRET, Clock, payload


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def challenges(tmp_path: Path, clock: Clock) -> Any:
    made = Challenges(SECRET, tmp_path, QUICK, clock)
    yield made
    made.close()


def refusal(challenges: Challenges, text: str, client: str | None = None) -> str:
    with pytest.raises(Refused) as refused:
        challenges.redeem(text, client)
    assert str(refused.value) == REFUSALS[refused.value.reason]
    return refused.value.reason


def altered(text: str, **parameters: Any) -> str:
    content = json.loads(base64.b64decode(text))
    content["challenge"]["parameters"].update(parameters)
    return base64.b64encode(json.dumps(content).encode()).decode()


def test_a_solution_is_redeemed_for_whom_and_what_it_was_issued(challenges: Challenges) -> None:
    assert challenges.redeem(payload(challenges.issue("d1", CLIENT, 40))) == Redeemed(CLIENT, "d1")


def test_what_is_issued_is_json_and_says_where_to_go(challenges: Challenges, clock: Clock) -> None:
    brief = challenges.brief(Described("d1", CLIENT, 40, clock.at))
    assert brief == challenges.at(brief["url"].removeprefix("/v1/challenge/"))
    assert brief["verify"] == "/v1/challenge/verify"
    issued = json.loads(json.dumps(challenges.issue("d1", CLIENT, 40)))
    assert issued["expires"] == int(clock.at + QUICK.lifetime_s)
    assert issued["parameters"]["algorithm"] == "PBKDF2/SHA-256"


def test_a_challenge_reveals_neither_the_client_nor_what_the_seal_holds(challenges: Challenges) -> None:
    issued = json.dumps(challenges.issue("decision-of-mine", CLIENT, 40)["parameters"])
    assert CLIENT not in issued
    assert "decision-of-mine" not in issued


def test_a_url_tells_all_that_its_challenge_needs_to_this_deployment_alone(
    challenges: Challenges, tmp_path: Path, clock: Clock
) -> None:
    described = Described("d1", CLIENT, 40, clock.at)
    name = challenges.brief(described)["url"].rpartition("/")[2]
    assert challenges.described(name) == described
    assert CLIENT not in name
    stranger = Challenges(bytes(32), tmp_path / "other", QUICK, clock)
    for other, named in ((stranger, name), (challenges, name[:-2]), (challenges, "d1"), (challenges, "é" * 3000)):
        with pytest.raises(Refused, match="no challenge here"):
            other.described(named)
    clock.at += QUICK.lifetime_s + 1.0
    with pytest.raises(Refused, match="expired"):
        challenges.described(name)
    stranger.close()


def test_the_second_use_is_refused(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges.redeem(solved)
    assert refusal(challenges, solved) == "spent"


def test_a_solution_dressed_differently_is_still_the_same(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges.redeem(solved)
    content = json.loads(base64.b64decode(solved))
    content["solution"]["time"] = 17
    again = base64.b64encode(json.dumps(content, indent=1).encode()).decode()
    assert refusal(challenges, again) == "spent"
    assert refusal(challenges, altered(solved, nonce=content["challenge"]["parameters"]["nonce"].upper())) == "tampered"


def test_of_many_at_the_same_moment_one_gets_through(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))

    def attempt(_: int) -> str:
        try:
            challenges.redeem(solved)
        except Refused as refused:
            return refused.reason
        return "redeemed"

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(attempt, range(32)))
    assert sorted(outcomes) == ["redeemed"] + ["spent"] * 31


def test_two_processes_on_one_record_accept_it_once(challenges: Challenges, tmp_path: Path, clock: Clock) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    other = Challenges(SECRET, tmp_path, QUICK, clock)
    assert other.redeem(solved).client == CLIENT
    assert refusal(challenges, solved) == "spent"
    other.close()


def test_spent_is_spent_after_a_restart(challenges: Challenges, tmp_path: Path, clock: Clock) -> None:
    spent, unspent = (payload(challenges.issue(name, CLIENT, 40)) for name in ("d1", "d2"))
    challenges.redeem(spent)
    challenges.close()
    after = Challenges(SECRET, tmp_path, QUICK, clock)
    assert refusal(after, spent) == "spent"
    assert after.redeem(unspent).decision_id == "d2"
    after.close()


_REDEEM = """
import sys, pathlib
from serving.challenge import Challenges
from tests.service.challenge_site import SECRET, QUICK, Clock
challenges = Challenges(SECRET, pathlib.Path(sys.argv[1]), QUICK, Clock())
challenges.redeem(sys.stdin.readline().strip())
print("redeemed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("lost", [(), ("-wal",), ("-wal", "-shm")])
def test_spent_is_spent_after_kill_9(
    challenges: Challenges, tmp_path: Path, clock: Clock, lost: tuple[str, ...]
) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges.close()
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _REDEEM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(solved + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "redeemed\n"
        os.kill(process.pid, signal.SIGKILL)
    for part in lost:
        (tmp_path / f"spent.sqlite{part}").unlink()
    after = Challenges(SECRET, tmp_path, QUICK, clock)
    assert refusal(after, solved) == "spent"
    after.close()


@pytest.mark.parametrize("left", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_torn_record_gives_no_second_use(tmp_path: Path, clock: Clock, left: float) -> None:
    before = Challenges(SECRET, tmp_path, QUICK, clock)
    spent = [payload(before.issue(f"d{number}", CLIENT, 99)) for number in range(3)]
    for solved in spent:
        before.redeem(solved)
    before.close()
    file = tmp_path / "spent.sqlite"
    os.truncate(file, int(file.stat().st_size * left))
    after = Challenges(SECRET, tmp_path, QUICK, clock)
    assert {refusal(after, solved) for solved in spent} <= {"spent", "expired"}
    assert after.redeem(payload(after.issue("new", CLIENT, 99))).decision_id == "new"
    after.close()


def test_a_record_of_garbage_is_put_aside_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spent.sqlite").write_bytes(b"not a database, and long enough to look at" * 100)
    Challenges(SECRET, tmp_path).close()
    assert (tmp_path / "spent.sqlite.damaged").exists()
    assert "damaged" in caplog.text
    assert {record.name for record in caplog.records} == {"botsieve.serving"}, "whose lines are JSON"


def test_a_lost_record_gives_no_second_use(challenges: Challenges, tmp_path: Path, clock: Clock) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges.redeem(solved)
    challenges.close()
    (tmp_path / "spent.sqlite").unlink()
    after = Challenges(SECRET, tmp_path, QUICK, clock)
    assert refusal(after, solved) == "expired"
    after.close()


def test_an_expired_challenge_is_refused(challenges: Challenges, clock: Clock) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    clock.at += QUICK.lifetime_s + 0.001
    assert refusal(challenges, solved) == "expired"


def test_the_clock_of_the_machine_does_not_matter(challenges: Challenges, clock: Clock) -> None:
    clock.at = 5.0  # a replay in event time, decades ago
    assert challenges.redeem(payload(challenges.issue("d1", CLIENT, 40))).decision_id == "d1"


def test_a_clock_set_back_gives_no_second_use(challenges: Challenges, tmp_path: Path, clock: Clock) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges.redeem(solved)
    start = clock.at
    clock.at += 10_000
    challenges.redeem(payload(challenges.issue("d2", CLIENT, 40)))  # by now the record has forgotten the first id
    clock.at = start
    assert refusal(challenges, solved) == "spent"
    other = Challenges(SECRET, tmp_path, QUICK, clock)  # knows the record alone
    assert refusal(other, solved) == "expired"
    assert other.redeem(payload(other.issue("d3", CLIENT, 40))).decision_id == "d3"
    assert refusal(other, solved) == "expired"
    other.close()


@pytest.mark.parametrize(
    "change",
    [{"cost": 1}, {"keyPrefix": ""}, {"keyPrefix": "0"}, {"keyLength": 1}, {"algorithm": "SHA-256"}, {"salt": "00"}],
    ids=str,
)
def test_an_easier_puzzle_is_not_the_one_that_was_issued(challenges: Challenges, change: dict[str, Any]) -> None:
    assert refusal(challenges, altered(payload(challenges.issue("d1", CLIENT, 40)), **change)) == "tampered"


def test_the_seal_of_one_challenge_does_not_fit_another(challenges: Challenges) -> None:
    first = challenges.issue("d1", CLIENT, 99)
    second = payload(challenges.issue("d2", OTHER, 99))
    assert refusal(challenges, altered(second, data=first["parameters"]["data"])) == "tampered"  # type: ignore[index]


def test_another_secret_refuses(challenges: Challenges, tmp_path: Path, clock: Clock) -> None:
    stranger = Challenges(bytes(32), tmp_path / "other", QUICK, clock)
    assert refusal(challenges, payload(stranger.issue("d1", CLIENT, 40))) == "tampered"
    stranger.close()


def test_a_guess_is_not_a_solution(challenges: Challenges) -> None:
    assert refusal(challenges, wrong(challenges.issue("d1", CLIENT, 1))) == "unsolved"


def wrong(issued: dict[str, Any], counter: int = 0) -> str:
    return altcha.Payload(altcha.Challenge.from_dict(issued), altcha.Solution(counter, "00" * 32)).to_base64()


def test_a_challenge_that_was_tried_too_often_is_spent(challenges: Challenges) -> None:
    issued, other = challenges.issue("d1", CLIENT, 40), challenges.issue("d2", CLIENT, 40)
    reasons = [refusal(challenges, wrong(issued, counter)) for counter in range(TRIES + 2)]
    assert reasons == ["unsolved"] * TRIES + ["spent"] * 2
    assert refusal(challenges, payload(issued)) == "spent"
    assert challenges.redeem(payload(other)).decision_id == "d2"
    with pytest.raises(Refused, match="used before"):
        challenges.admit(payload(other))  # no longer costs a try of the puzzle, nor the disk


def test_a_forged_challenge_is_no_try(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    for _ in range(TRIES):
        assert refusal(challenges, altered(solved, cost=1)) == "tampered"
    assert challenges.redeem(solved).decision_id == "d1"


def test_the_tries_of_so_many_challenges_are_remembered(
    challenges: Challenges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.challenge.TRIED", 4)
    for _ in range(20):
        refusal(challenges, wrong(challenges.issue("d1", CLIENT, 99)))
    assert len(challenges._tries) == 4


def test_a_known_sender_must_be_the_one_it_was_issued_to(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    assert refusal(challenges, solved, OTHER) == "client"
    assert challenges.redeem(solved, CLIENT) == Redeemed(CLIENT, "d1")


def test_a_full_record_refuses_until_ids_expire(tmp_path: Path, clock: Clock) -> None:
    challenges = Challenges(SECRET, tmp_path, ChallengeOptions(work_least=256, work_most=256, capacity=2), clock)
    for name in ("d1", "d2"):
        challenges.redeem(payload(challenges.issue(name, CLIENT, 99)))
    waiting = payload(challenges.issue("d3", CLIENT, 99))
    assert refusal(challenges, waiting) == "store"
    clock.at += 299.0
    later = payload(challenges.issue("d4", CLIENT, 99))
    clock.at += 62.0
    assert challenges.redeem(later).decision_id == "d4"
    challenges.close()


def test_the_record_forgets_what_has_expired(challenges: Challenges, clock: Clock) -> None:
    for step in range(20):
        challenges.redeem(payload(challenges.issue(f"d{step}", CLIENT, 99)))
        clock.at += 100
    assert len(challenges._spent) <= 5


def test_a_record_that_cannot_be_written_is_not_a_pass(challenges: Challenges) -> None:
    solved = payload(challenges.issue("d1", CLIENT, 40))
    challenges._spent._database.execute("PRAGMA query_only = ON")
    assert refusal(challenges, solved) == "store"
    challenges._spent._database.execute("PRAGMA query_only = OFF")
    assert challenges.redeem(solved).decision_id == "d1"


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.b64encode(raw).decode())))
def test_any_text_is_refused_in_words(text: str) -> None:
    assert refusal(_anywhere(), text) == "malformed"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["algorithm", "nonce", "salt", "cost", "keyLength", "keyPrefix", "data", "expiresAt"]), _json)
def test_any_parameter_of_any_kind_is_refused_in_words(name: str, value: Any) -> None:
    challenges = _anywhere()
    issued = challenges.issue("d1", CLIENT, 99)
    if issued["parameters"].get(name) == value:  # type: ignore[attr-defined]
        return
    guess = {"challenge": issued, "solution": {"counter": 0, "derivedKey": "00"}}
    text = altered(base64.b64encode(json.dumps(guess).encode()).decode(), **{name: value})
    assert refusal(challenges, text) in {"malformed", "tampered"}


_shared: list[Challenges] = []


def _anywhere() -> Challenges:
    return _shared[0]


@pytest.fixture(autouse=True, scope="module")
def _one_for_hypothesis(tmp_path_factory: pytest.TempPathFactory) -> Any:
    _shared.append(Challenges(SECRET, tmp_path_factory.mktemp("spent"), QUICK, Clock()))
    yield
    _shared.pop().close()


def test_the_lower_the_score_the_harder() -> None:
    options = ChallengeOptions()
    efforts = [work(score, options) for score in range(1, 100)]
    assert efforts == sorted(efforts, reverse=True)
    assert (efforts[0], efforts[-1]) == (options.work_most, options.work_least)
    for asked in efforts:
        prefix, cost = puzzle(asked)
        assert abs(cost * 16 ** len(prefix) / asked - 1) < 0.01
        assert 250 <= cost <= 4000  # checking a solution costs one try


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 16"):
        Challenges(b"short", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give a folder"):
        Challenges(SECRET, tmp_path / "file" / "folder")


def test_a_pass_that_is_only_looked_at_is_neither_kept_nor_used(clock: Clock) -> None:
    passes = Passes(SECRET, PassOptions(lifetime_s=100.0, requests=2, capacity=1), clock)
    seen, used = passes.grant(CLIENT), passes.grant(CLIENT)
    for _ in range(5):
        assert passes.admit(seen, CLIENT, spend=False) is None
    assert len(passes) == 0
    assert passes.admit(used, CLIENT) is None
    assert passes.admit(seen, CLIENT, spend=False) == "full", "it could not be counted"
    assert passes.admit(seen, OTHER, spend=False) == "client"
    clock.at += 99.0
    for _ in range(3):
        assert passes.admit(used, CLIENT, spend=False) is None
    assert passes.admit(used, CLIENT) is None
    assert [passes.admit(used, CLIENT, spend) for spend in (False, True)] == ["used", "used"]
    clock.at += 1.0
    assert passes.admit(used, CLIENT, spend=False) == "expired"


def test_uses_are_counted_over_the_turn_of_generations_also_of_a_pass_that_waits(clock: Clock) -> None:
    passes = Passes(SECRET, PassOptions(lifetime_s=100.0, requests=2), clock)
    clock.at += 90.0
    granted = passes.grant(CLIENT)
    assert passes.admit(granted, CLIENT) is None
    clock.at += 20.0  # the generations have turned
    assert passes.admit(granted, CLIENT, spend=False) is None
    assert passes.admit(granted, CLIENT) is None
    clock.at += 60.0
    assert passes.admit(granted, CLIENT, spend=False) == "used"
    assert passes.admit(granted, CLIENT) == "used"
