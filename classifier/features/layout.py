"""Where each number of a profile, an event row and a sketch lies: constants of the kernel.

A profile is one record of whole cache lines: decayed sums as float64, then bitmaps as uint64 in the same bytes. The first
numbers are those of every profile; a client's own follow. What a completion moves lies together, so that it needs few lines.
"""

from __future__ import annotations

from itertools import count

LINE = 8  # numbers of a cache line

# --- the numbers of every profile --------------------------------------------------------------------------------------
_at = count()
LAST = next(_at)  # µs, newest transition
SERIAL = next(_at)  # serial number of the first arrival: tells a reborn profile from the one that was evicted
EPOCH = next(_at)  # epoch of LAST, in which the sums are written: see `profile.rebase`
GENERATION = next(_at)  # newest generation of the sketches
N_65536 = next(_at)  # here, because it chooses the victim of a newcomer
IN_FLIGHT = next(_at)
DONE, AUTH, MISSING, OUT_N, OUT_S, N = (next(_at) for _ in range(6))  # 4096 s, as far as N
N_64 = next(_at)
N_8 = next(_at)
BORN = next(_at)  # µs, first arrival
PREVIOUS = next(_at)  # µs, newest arrival; -1 before the first
TOTAL = next(_at)  # arrivals since BORN
GAP_N, GAP_S, GAP_Q = (
    next(_at) for _ in range(3)
)  # 4096 s, as far as REFERERS; count, sum, sum of squares of log2 gaps
AGE_N, AGE_S, POSTS, REFERERS = (next(_at) for _ in range(4))
SHARED_END = next(_at)

# --- the numbers of clients only ---------------------------------------------------------------------------------------
_at = count(SHARED_END)
OUT_65536 = next(_at)
DONE_64, AUTH_64, LIMITED_64, IN_64, OUT_64 = (next(_at) for _ in range(5))  # 64 s, as far as GAP_Q_64
GAP_N_64, GAP_S_64, GAP_Q_64 = (next(_at) for _ in range(3))
LIMITED, CLIENT_ERRORS, SERVER_ERRORS, IN_N, IN_S, ASKED, USED = (next(_at) for _ in range(7))  # 4096 s, to the end
RESPONSE_N, DURATION_N, RESPONSE_S, DURATION_S, RESPONSE_Q, DURATION_Q = (next(_at) for _ in range(6))
REPEATS, REVISITS = next(_at), next(_at)
OTHER_METHODS, ASSETS, PROBES, QUERIES, NO_AGENTS, BROWSERS, SDKS, DECLARED_BOTS = (next(_at) for _ in range(8))
REQUEST_N, CAP_N, PROMPT_N, CAP_S, PROMPT_SCORES, PROMPT_ALARMS = (next(_at) for _ in range(6))
DEPTH_S, LENGTH_S, REQUEST_S, PROMPT_S = (next(_at) for _ in range(4))
DEPTH_Q, LENGTH_Q, REQUEST_Q, PROMPT_Q = (next(_at) for _ in range(4))
PAGE_N, PAGE_S, PAGE_Q, PAGE_1, PAGE_8, PAGE_64 = (next(_at) for _ in range(6))
LONG_END = next(_at)
N_1 = LONG_END
N_512 = LONG_END + 1
PREVIOUS_PAGE = LONG_END + 2  # µs, newest arrival for a page; -1 before the first
OWN_END = LONG_END + 3

# --- the bitmaps: the current generation, the previous one; then, of clients, the hash of the newest path ---------------
PATHS, PATHS_WORDS = 0, 2
FINGERPRINTS, FINGERPRINTS_WORDS = 2, 1
CREDENTIALS, CREDENTIALS_WORDS = 3, 1
ADDRESSES, ADDRESSES_WORDS = 4, 4
TEMPLATES, TEMPLATES_WORDS = 8, 2
MODELS, MODELS_WORDS = 10, 1  # clients only
CLIENTS, CLIENTS_WORDS = 10, 4  # all but clients
OWN_BITMAPS, GROUP_BITMAPS = 11, 14  # words of one generation
OWN_SKETCH, GROUP_SKETCH = OWN_END, SHARED_END  # where the bitmaps begin
NEWEST_PATH = OWN_SKETCH + 2 * OWN_BITMAPS


def _whole_lines(numbers: int) -> int:
    return (numbers + LINE - 1) // LINE * LINE


OWN_WIDTH = _whole_lines(NEWEST_PATH + 1)
GROUP_WIDTH = _whole_lines(GROUP_SKETCH + 2 * GROUP_BITMAPS)
OWN_COMPLETION_LINES = _whole_lines(DURATION_Q + 1) // LINE
GROUP_COMPLETION_LINES = _whole_lines(OUT_S + 1) // LINE

# --- an event's hashes, uint64 ----------------------------------------------------------------------------------------
H_CLIENT, H_ADDRESS, H_NETWORK, H_FINGERPRINT, H_TEMPLATE, H_PATH, H_MODEL, H_CREDENTIAL = range(8)
HASHES = 8

# --- an event's values, float32: what it adds to the sums, in their order; a missing figure is a count and a sum of 0 ---
(
    V_AGE_N, V_AGE,  # log2(1 + s)
    V_POST, V_REFERER,
    V_OTHER_METHOD, V_ASSET, V_PROBE, V_QUERY,
    V_NO_AGENT, V_BROWSER, V_SDK, V_DECLARED_BOT,  # see agents.py; none of them: another program
    V_REQUEST_N, V_CAP_N, V_PROMPT_N,
    V_CAP,  # log2(1 + tokens)
    V_PROMPT_SCORE, V_PROMPT_ALARM,  # log odds, see promptscore.py; 1 where it is above `PROMPT_ALARM`
    V_DEPTH,
    V_LENGTH,  # log2(1 + characters)
    V_REQUEST,  # log2(1 + bytes)
    V_PROMPT,  # log2(1 + characters)
    V_LIMIT,  # tokens asked for at most, NaN where missing; the last that is known at arrival
    V_DONE, V_AUTH, V_MISSING,
    V_OUT_N, V_OUT,  # tokens
    V_LIMITED, V_CLIENT_ERROR, V_SERVER_ERROR,
    V_IN_N, V_IN,  # tokens
    V_ASKED, V_USED,  # tokens, where both are known
    V_RESPONSE_N, V_DURATION_N,
    V_RESPONSE,  # log2(1 + bytes)
    V_DURATION,  # log2 s, clamped to 1 ms
    V_REFUSED,  # 1 when botsieve refused the request
) = range(40)  # fmt: skip
VALUES = 40
PROMPT_ALARM = 2.0
"""Log odds from which a prompt counts as one that tries something: 88 % in the balanced data of its training."""

# What of a record and of an event's values lies side by side in the same order: first number of each, and how many.
AGES = (AGE_N, V_AGE_N, REFERERS - AGE_N + 1)
TRAITS = (OTHER_METHODS, V_OTHER_METHOD, PROMPT_S - OTHER_METHODS + 1)
SQUARED_TRAITS = (DEPTH_Q, V_DEPTH, PROMPT_Q - DEPTH_Q + 1)
ANSWERS = (DONE, V_DONE, OUT_S - DONE + 1)
OWN_ANSWERS = (LIMITED, V_LIMITED, DURATION_S - LIMITED + 1)
SQUARED_ANSWERS = (RESPONSE_Q, V_RESPONSE, DURATION_Q - RESPONSE_Q + 1)

# --- transitions -------------------------------------------------------------------------------------------------------
ARRIVAL, COMPLETION, EXPIRY = 0, 1, 2
