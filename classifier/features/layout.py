"""Where each number of a profile, an event row and a sketch lies: constants of the kernel.

A profile is `CLIENT_WIDTH` or `GROUP_WIDTH` float64 and `SKETCH_WIDTH` uint64. The decayed sums lie in one block per
half-life, so that decaying is a few vector multiplications. The block of 4096 s ends with sums that only clients keep.
"""

from __future__ import annotations

from itertools import count

# --- a profile's float64 -------------------------------------------------------------------------------------------
_at = count()
LAST = next(_at)  # µs, newest transition
BORN = next(_at)  # µs, first arrival
SERIAL = next(_at)  # serial number of the first arrival: tells a reborn profile from the one that was evicted
PREVIOUS = next(_at)  # µs, newest arrival; -1 before the first
PREVIOUS_PAGE = next(_at)  # µs, newest arrival for a page; -1 before the first
GENERATION = next(_at)  # newest generation of the sketches
IN_FLIGHT = next(_at)
SUMS = IN_FLIGHT  # from here on: what adds when profiles merge
TOTAL = next(_at)  # arrivals since BORN
N_1 = next(_at)
N_8 = next(_at)
N_512 = next(_at)

SHORT = next(_at)  # block of 64 s
N_64 = SHORT
GAP_N_64, GAP_S_64, GAP_Q_64 = next(_at), next(_at), next(_at)  # count, sum and sum of squares of log2 gaps
DONE_64, AUTH_64, LIMITED_64 = next(_at), next(_at), next(_at)
IN_64, OUT_64 = next(_at), next(_at)

DAY = next(_at)  # block of 65536 s
N_65536 = DAY
OUT_65536 = next(_at)

LONG = next(_at)  # block of 4096 s
N = LONG
GAP_N, GAP_S, GAP_Q = next(_at), next(_at), next(_at)
DONE, AUTH, MISSING, LIMITED, CLIENT_ERRORS, SERVER_ERRORS = (next(_at) for _ in range(6))
IN_N, IN_S, OUT_N, OUT_S = (next(_at) for _ in range(4))
AGE_N, AGE_S = next(_at), next(_at)
POSTS, REFERERS = next(_at), next(_at)
LONG_OWN = next(_at)  # from here on: clients only
OTHER_METHODS = LONG_OWN
ASSETS, PROBES, QUERIES, REPEATS, REVISITS = (next(_at) for _ in range(5))
DEPTH_S, DEPTH_Q, LENGTH_S, LENGTH_Q = (next(_at) for _ in range(4))
DECLARED_BOTS, SDKS, BROWSERS, NO_AGENTS = (next(_at) for _ in range(4))
REQUEST_N, REQUEST_S, REQUEST_Q = (next(_at) for _ in range(3))
RESPONSE_N, RESPONSE_S, RESPONSE_Q = (next(_at) for _ in range(3))
DURATION_N, DURATION_S, DURATION_Q = (next(_at) for _ in range(3))
CAP_N, CAP_S, ASKED, USED = (next(_at) for _ in range(4))
PROMPT_N, PROMPT_S, PROMPT_Q = (next(_at) for _ in range(3))
PAGE_N, PAGE_S, PAGE_Q, PAGE_1, PAGE_8, PAGE_64 = (next(_at) for _ in range(6))
LONG_END = next(_at)
CLIENT_WIDTH = (LONG_END + 7) // 8 * 8  # whole cache lines
GROUP_WIDTH = (LONG_OWN + 7) // 8 * 8

# --- a profile's uint64: two generations of bitmaps, then the hash of the newest path --------------------------------
PATHS, PATHS_WORDS = 0, 2
MODELS, MODELS_WORDS = 2, 1
FINGERPRINTS, FINGERPRINTS_WORDS = 3, 1
CREDENTIALS, CREDENTIALS_WORDS = 4, 1
CLIENTS, CLIENTS_WORDS = 5, 4
ADDRESSES, ADDRESSES_WORDS = 9, 4
TEMPLATES, TEMPLATES_WORDS = 13, 2
BITMAPS = 15  # words of one generation
NEWEST_PATH = 2 * BITMAPS
SKETCH_WIDTH = 32

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
