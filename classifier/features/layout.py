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
RESPONSE_N, RESPONSE_S, RESPONSE_Q = (next(_at) for _ in range(3))
DURATION_N, DURATION_S, DURATION_Q = (next(_at) for _ in range(3))
OTHER_METHODS, ASSETS, PROBES, QUERIES, REPEATS, REVISITS = (next(_at) for _ in range(6))
DEPTH_S, DEPTH_Q, LENGTH_S, LENGTH_Q = (next(_at) for _ in range(4))
NO_AGENTS, BROWSERS, SDKS, DECLARED_BOTS = (next(_at) for _ in range(4))
REQUEST_N, REQUEST_S, REQUEST_Q = (next(_at) for _ in range(3))
CAP_N, CAP_S = next(_at), next(_at)
PROMPT_N, PROMPT_S, PROMPT_Q = (next(_at) for _ in range(3))
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

# --- an event's values, float64; NaN where missing --------------------------------------------------------------------
(
    V_POST,  # 1 POST, 0 GET, -1 other
    V_DEPTH,
    V_LENGTH,  # log2(1 + characters)
    V_QUERY,
    V_ASSET,
    V_PROBE,
    V_REFERER,
    V_AGENT,  # see agents.py
    V_REQUEST,  # log2(1 + bytes)
    V_CAP,  # log2(1 + tokens)
    V_AGE,  # log2(1 + s)
    V_PROMPT,  # log2(1 + characters)
    V_ASKED,  # tokens; the last that is known at arrival
    V_DURATION,  # log2 s, clamped to 1 ms
    V_STATUS,
    V_IN,  # tokens
    V_OUT,  # tokens
    V_RESPONSE,  # log2(1 + bytes)
    V_REFUSED,  # 1 when botsieve refused the request
) = range(19)
VALUES = 19
KNOWN_AT_ARRIVAL = V_ASKED + 1

# --- transitions -------------------------------------------------------------------------------------------------------
ARRIVAL, COMPLETION, EXPIRY = 0, 1, 2
