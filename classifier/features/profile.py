"""The kernel: how one transition moves a profile, how a profile is read, and the loop over a table of profiles.

Sums decay as S <- S * 2^(-dt/h) + x (forward decay; Cormode et al., ICDE 2009, section "exponential"). Distinct counts are
linear counting (Whang et al., TODS 1990) over two rotating generations. Updating and reading are O(1), and reading never
writes.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
from numba import njit

from classifier.features import layout as at
from classifier.features.numerics import count_bits, exp2_negative, log2_positive, prefetch
from classifier.features.spec import ENTITIES, GENERATION_S, HALF_LIVES_S, MEASURE_INDEX, REQUEST

LN2 = 0.6931471805599453
LONGEST_US = HALF_LIVES_S[-1] * 1e6
GENERATION_US = GENERATION_S * 1e6
NAN = math.nan
ONE = np.uint64(1)
ZERO = np.uint64(0)
BLOCK = 2048
"""Transitions after which the next entity kind has its turn: their event rows fit a core's cache."""
AHEAD = 16
"""Transitions between asking for a profile's cache lines and using them."""
EVERYONE = ENTITIES.index("everyone")


def _linear_counting(bits: int) -> np.ndarray:
    """Return n = -m ln(z/m) for z = m - i zero bits, i = 0..m ones; a full bitmap reads as one of half a zero."""
    shares = [max(bits - ones, 0.5) / bits for ones in range(bits + 1)]
    return np.array([0.0, *(-bits * float(Decimal(share).ln()) for share in shares[1:])])


_COUNT_64 = _linear_counting(64)
_COUNT_128 = _linear_counting(128)
_COUNT_256 = _linear_counting(256)

# Indices of the measures, under the names that `read` uses.
(
    M_RATE_1, M_RATE_8, M_RATE_64, M_RATE_512, M_RATE_4096, M_RATE_65536,
) = (MEASURE_INDEX[f"rate_{h}s"] for h in HALF_LIVES_S)  # fmt: skip
M_BURST_SHORT = MEASURE_INDEX["burst_short"]
M_BURST_LONG = MEASURE_INDEX["burst_long"]
M_GAP = MEASURE_INDEX["gap"]
M_GAP_MEAN_64 = MEASURE_INDEX["gap_mean_64s"]
M_GAP_STD_64 = MEASURE_INDEX["gap_std_64s"]
M_GAP_MEAN = MEASURE_INDEX["gap_mean_4096s"]
M_GAP_STD = MEASURE_INDEX["gap_std_4096s"]
M_PAGE_MEAN = MEASURE_INDEX["page_gap_mean"]
M_PAGE_STD = MEASURE_INDEX["page_gap_std"]
M_PAGE_1 = MEASURE_INDEX["page_gap_under_1s"]
M_PAGE_8 = MEASURE_INDEX["page_gap_under_8s"]
M_PAGE_64 = MEASURE_INDEX["page_gap_under_64s"]
M_IN_FLIGHT = MEASURE_INDEX["in_flight"]
M_SEEN = MEASURE_INDEX["requests_seen"]
M_AGE = MEASURE_INDEX["age"]
M_POST = MEASURE_INDEX["post_share"]
M_OTHER_METHOD = MEASURE_INDEX["other_method_share"]
M_REFERER = MEASURE_INDEX["referer_share"]
M_ASSET = MEASURE_INDEX["asset_share"]
M_PROBE = MEASURE_INDEX["probe_share"]
M_QUERY = MEASURE_INDEX["query_share"]
M_REPEAT = MEASURE_INDEX["repeat_share"]
M_REVISIT = MEASURE_INDEX["revisit_share"]
M_DEPTH_MEAN = MEASURE_INDEX["depth_mean"]
M_DEPTH_STD = MEASURE_INDEX["depth_std"]
M_LENGTH_MEAN = MEASURE_INDEX["length_mean"]
M_LENGTH_STD = MEASURE_INDEX["length_std"]
M_DECLARED = MEASURE_INDEX["declared_bot_share"]
M_SDK = MEASURE_INDEX["sdk_share"]
M_BROWSER = MEASURE_INDEX["browser_share"]
M_NO_AGENT = MEASURE_INDEX["no_agent_share"]
M_REQUEST_MEAN = MEASURE_INDEX["request_size_mean"]
M_REQUEST_STD = MEASURE_INDEX["request_size_std"]
M_RESPONSE_MEAN = MEASURE_INDEX["response_size_mean"]
M_RESPONSE_STD = MEASURE_INDEX["response_size_std"]
M_DURATION_MEAN = MEASURE_INDEX["duration_mean"]
M_DURATION_STD = MEASURE_INDEX["duration_std"]
M_CAP_MEAN = MEASURE_INDEX["cap_mean"]
M_PROMPT_MEAN = MEASURE_INDEX["prompt_length_mean"]
M_PROMPT_STD = MEASURE_INDEX["prompt_length_std"]
M_ACCOUNT_AGE = MEASURE_INDEX["account_age_mean"]
M_AUTH_64 = MEASURE_INDEX["auth_error_share_64s"]
M_AUTH = MEASURE_INDEX["auth_error_share_4096s"]
M_MISSING = MEASURE_INDEX["not_found_share_4096s"]
M_LIMITED_64 = MEASURE_INDEX["limited_share_64s"]
M_LIMITED = MEASURE_INDEX["limited_share_4096s"]
M_CLIENT_ERROR = MEASURE_INDEX["client_error_share_4096s"]
M_SERVER_ERROR = MEASURE_INDEX["server_error_share_4096s"]
M_IN_RATE_64 = MEASURE_INDEX["input_token_rate_64s"]
M_IN_RATE = MEASURE_INDEX["input_token_rate_4096s"]
M_OUT_RATE_64 = MEASURE_INDEX["output_token_rate_64s"]
M_OUT_RATE = MEASURE_INDEX["output_token_rate_4096s"]
M_OUT_RATE_DAY = MEASURE_INDEX["output_token_rate_65536s"]
M_IN_MEAN = MEASURE_INDEX["input_tokens_per_request"]
M_OUT_MEAN = MEASURE_INDEX["output_tokens_per_request"]
M_USED = MEASURE_INDEX["used_over_asked"]
M_PATHS = MEASURE_INDEX["distinct_paths"]
M_MODELS = MEASURE_INDEX["distinct_models"]
M_FINGERPRINTS = MEASURE_INDEX["distinct_fingerprints"]
M_CLIENTS = MEASURE_INDEX["distinct_clients"]
M_ADDRESSES = MEASURE_INDEX["distinct_addresses"]
M_CREDENTIALS = MEASURE_INDEX["distinct_credentials"]
M_TEMPLATES = MEASURE_INDEX["distinct_templates"]

PER_S_1, PER_S_8, PER_S_64, PER_S_512, PER_S_4096, PER_S_65536 = (LN2 / h for h in HALF_LIVES_S)
"""A steady rate r keeps a decayed count of r h / ln 2."""


@njit(cache=True, nogil=True, inline="always")
def _scale(state, p, begin, end, factor):
    for i in range(p + begin, p + end):
        state[i] *= factor


@njit(cache=True, nogil=True, error_model="numpy")
def advance(state, p, sketch, q, now, own):
    """Decay a profile to `now` (µs, not before its newest transition) and rotate its sketches.

    One exponential for the longest half-life; the shorter ones follow by squaring (each is 2^3 or 2^4 times shorter).
    """
    elapsed = now - state[p + at.LAST]
    if elapsed > 0.0:
        f = exp2_negative(-elapsed / LONGEST_US)
        _scale(state, p, at.DAY, at.LONG, f)
        f *= f
        f *= f
        f *= f
        f *= f
        _scale(state, p, at.LONG, at.LONG_END if own else at.LONG_OWN, f)
        f *= f
        f *= f
        f *= f
        state[p + at.N_512] *= f
        f *= f
        f *= f
        f *= f
        _scale(state, p, at.SHORT, at.DAY, f)
        f *= f
        f *= f
        f *= f
        state[p + at.N_8] *= f
        f *= f
        f *= f
        f *= f
        state[p + at.N_1] *= f
        state[p + at.LAST] = now
        generation = math.floor(now / GENERATION_US)
        if generation != state[p + at.GENERATION]:
            if generation == state[p + at.GENERATION] + 1.0:
                for i in range(q, q + at.BITMAPS):
                    sketch[at.BITMAPS + i] = sketch[i]
                    sketch[i] = ZERO
            else:
                for i in range(q, q + 2 * at.BITMAPS):
                    sketch[i] = ZERO
            state[p + at.GENERATION] = generation


@njit(cache=True, nogil=True, inline="always")
def _mark(sketch, begin, words, key):
    """Set the key's bit; return whether it was set already in either generation."""
    bit = (key >> np.uint64(32)) & np.uint64(64 * words - 1)
    word = begin + np.int64(bit >> np.uint64(6))
    mask = ONE << (bit & np.uint64(63))
    seen = ((sketch[word] | sketch[at.BITMAPS + word]) & mask) != ZERO
    sketch[word] |= mask
    return seen


@njit(cache=True, nogil=True, error_model="numpy")
def arrive(state, p, sketch, q, now, hashes, values, event, own):
    """Record an arrival at `now` in a profile that `advance` has brought there; return its log2 gap, NaN at first."""
    state[p + at.N_1] += 1.0
    state[p + at.N_8] += 1.0
    state[p + at.N_64] += 1.0
    state[p + at.N_512] += 1.0
    state[p + at.N] += 1.0
    state[p + at.N_65536] += 1.0
    state[p + at.TOTAL] += 1.0
    state[p + at.IN_FLIGHT] += 1.0
    gap = NAN
    if state[p + at.PREVIOUS] >= 0.0:
        gap = log2_positive(max((now - state[p + at.PREVIOUS]) * 1e-6, 1e-3))
        state[p + at.GAP_N_64] += 1.0
        state[p + at.GAP_S_64] += gap
        state[p + at.GAP_Q_64] += gap * gap
        state[p + at.GAP_N] += 1.0
        state[p + at.GAP_S] += gap
        state[p + at.GAP_Q] += gap * gap
    state[p + at.PREVIOUS] = now
    if not math.isnan(values[event, at.V_AGE]):
        state[p + at.AGE_N] += 1.0
        state[p + at.AGE_S] += values[event, at.V_AGE]
    if values[event, at.V_POST] == 1.0:
        state[p + at.POSTS] += 1.0
    state[p + at.REFERERS] += values[event, at.V_REFERER]
    if hashes[event, at.H_CLIENT] != ZERO:
        _mark(sketch, q + at.CLIENTS, at.CLIENTS_WORDS, hashes[event, at.H_CLIENT])
    if hashes[event, at.H_ADDRESS] != ZERO:
        _mark(sketch, q + at.ADDRESSES, at.ADDRESSES_WORDS, hashes[event, at.H_ADDRESS])
    if hashes[event, at.H_FINGERPRINT] != ZERO:
        _mark(sketch, q + at.FINGERPRINTS, at.FINGERPRINTS_WORDS, hashes[event, at.H_FINGERPRINT])
    if hashes[event, at.H_TEMPLATE] != ZERO:
        _mark(sketch, q + at.TEMPLATES, at.TEMPLATES_WORDS, hashes[event, at.H_TEMPLATE])
    if hashes[event, at.H_MODEL] != ZERO:
        _mark(sketch, q + at.MODELS, at.MODELS_WORDS, hashes[event, at.H_MODEL])
    if hashes[event, at.H_CREDENTIAL] != ZERO:
        _mark(sketch, q + at.CREDENTIALS, at.CREDENTIALS_WORDS, hashes[event, at.H_CREDENTIAL])
    seen_path = _mark(sketch, q + at.PATHS, at.PATHS_WORDS, hashes[event, at.H_PATH])
    if own:
        _arrive_own(state, p, sketch, q, now, hashes, values, event, seen_path)
    return gap


@njit(cache=True, nogil=True, error_model="numpy")
def _arrive_own(state, p, sketch, q, now, hashes, values, event, seen_path):
    if values[event, at.V_POST] < 0.0:
        state[p + at.OTHER_METHODS] += 1.0
    state[p + at.PROBES] += values[event, at.V_PROBE]
    state[p + at.QUERIES] += values[event, at.V_QUERY]
    if seen_path:
        state[p + at.REVISITS] += 1.0
    if sketch[q + at.NEWEST_PATH] == hashes[event, at.H_PATH]:
        state[p + at.REPEATS] += 1.0
    sketch[q + at.NEWEST_PATH] = hashes[event, at.H_PATH]
    state[p + at.DEPTH_S] += values[event, at.V_DEPTH]
    state[p + at.DEPTH_Q] += values[event, at.V_DEPTH] * values[event, at.V_DEPTH]
    state[p + at.LENGTH_S] += values[event, at.V_LENGTH]
    state[p + at.LENGTH_Q] += values[event, at.V_LENGTH] * values[event, at.V_LENGTH]
    agent = values[event, at.V_AGENT]
    if agent == 0.0:
        state[p + at.NO_AGENTS] += 1.0
    elif agent == 1.0:
        state[p + at.BROWSERS] += 1.0
    elif agent == 2.0:
        state[p + at.SDKS] += 1.0
    elif agent == 3.0:
        state[p + at.DECLARED_BOTS] += 1.0
    if not math.isnan(values[event, at.V_REQUEST]):
        state[p + at.REQUEST_N] += 1.0
        state[p + at.REQUEST_S] += values[event, at.V_REQUEST]
        state[p + at.REQUEST_Q] += values[event, at.V_REQUEST] * values[event, at.V_REQUEST]
    if not math.isnan(values[event, at.V_CAP]):
        state[p + at.CAP_N] += 1.0
        state[p + at.CAP_S] += values[event, at.V_CAP]
    if not math.isnan(values[event, at.V_PROMPT]):
        state[p + at.PROMPT_N] += 1.0
        state[p + at.PROMPT_S] += values[event, at.V_PROMPT]
        state[p + at.PROMPT_Q] += values[event, at.V_PROMPT] * values[event, at.V_PROMPT]
    if values[event, at.V_ASSET] == 1.0:
        state[p + at.ASSETS] += 1.0
        return
    if state[p + at.PREVIOUS_PAGE] >= 0.0:
        seconds = max((now - state[p + at.PREVIOUS_PAGE]) * 1e-6, 1e-3)
        gap = log2_positive(seconds)
        state[p + at.PAGE_N] += 1.0
        state[p + at.PAGE_S] += gap
        state[p + at.PAGE_Q] += gap * gap
        if seconds < 1.0:
            state[p + at.PAGE_1] += 1.0
        elif seconds < 8.0:
            state[p + at.PAGE_8] += 1.0
        elif seconds < 64.0:
            state[p + at.PAGE_64] += 1.0
    state[p + at.PREVIOUS_PAGE] = now


@njit(cache=True, nogil=True, error_model="numpy")
def complete(state, p, values, event, own):
    """Record a completion. One that botsieve refused ends the request in flight and adds nothing else."""
    state[p + at.IN_FLIGHT] -= 1.0
    if values[event, at.V_REFUSED] == 1.0:
        return
    status = values[event, at.V_STATUS]
    if not math.isnan(status):
        state[p + at.DONE_64] += 1.0
        state[p + at.DONE] += 1.0
        if status >= 500.0:
            state[p + at.SERVER_ERRORS] += 1.0
        elif status == 401.0 or status == 403.0:
            state[p + at.AUTH_64] += 1.0
            state[p + at.AUTH] += 1.0
        elif status == 429.0:
            state[p + at.LIMITED_64] += 1.0
            state[p + at.LIMITED] += 1.0
        elif status == 404.0:
            state[p + at.MISSING] += 1.0
        elif status >= 400.0:
            state[p + at.CLIENT_ERRORS] += 1.0
    tokens = values[event, at.V_IN]
    if not math.isnan(tokens):
        state[p + at.IN_64] += tokens
        state[p + at.IN_N] += 1.0
        state[p + at.IN_S] += tokens
    tokens = values[event, at.V_OUT]
    if not math.isnan(tokens):
        state[p + at.OUT_64] += tokens
        state[p + at.OUT_N] += 1.0
        state[p + at.OUT_S] += tokens
        state[p + at.OUT_65536] += tokens
    if not own:
        return
    if not math.isnan(tokens) and not math.isnan(values[event, at.V_ASKED]):
        state[p + at.ASKED] += values[event, at.V_ASKED]
        state[p + at.USED] += tokens
    if not math.isnan(values[event, at.V_RESPONSE]):
        state[p + at.RESPONSE_N] += 1.0
        state[p + at.RESPONSE_S] += values[event, at.V_RESPONSE]
        state[p + at.RESPONSE_Q] += values[event, at.V_RESPONSE] * values[event, at.V_RESPONSE]
    if not math.isnan(values[event, at.V_DURATION]):
        state[p + at.DURATION_N] += 1.0
        state[p + at.DURATION_S] += values[event, at.V_DURATION]
        state[p + at.DURATION_Q] += values[event, at.V_DURATION] * values[event, at.V_DURATION]


@njit(cache=True, nogil=True, inline="always")
def _put(out, row, column, value):
    if column >= 0:
        out[row, column] = np.float32(value)


@njit(cache=True, nogil=True, inline="always", error_model="numpy")
def _put_spread(out, row, mean_column, std_column, n, total, squares):
    """Write mean and standard deviation from count, sum and sum of squares; NaN without observations."""
    if mean_column < 0 and std_column < 0:
        return
    if n > 0.0:
        mean = total / n
        _put(out, row, mean_column, mean)
        if std_column >= 0:
            out[row, std_column] = np.float32(math.sqrt(max(squares / n - mean * mean, 0.0)))
    else:
        _put(out, row, mean_column, NAN)
        _put(out, row, std_column, NAN)


@njit(cache=True, nogil=True, inline="always")
def _distinct(sketch, begin, words, table):
    ones = 0
    for i in range(begin, begin + words):
        ones += count_bits(sketch[i] | sketch[at.BITMAPS + i])
    return table[ones]


@njit(cache=True, nogil=True, error_model="numpy")
def read(state, p, sketch, q, gap, corrections, event, columns, own, out, row):
    """Write the measures of a profile at its newest transition, an arrival, into the columns selected for its entity.

    `columns` int64[measures]: the column of each measure in `out`, -1 where it is no feature. `correction` float64[6]:
    1 / (1 - 2^(-age/h)) for the engine's age, because an engine that has just started has not seen a whole half-life.
    """
    rate_1 = state[p + at.N_1] * PER_S_1 * corrections[event, 0]
    rate_64 = state[p + at.N_64] * PER_S_64 * corrections[event, 2]
    rate_4096 = state[p + at.N] * PER_S_4096 * corrections[event, 4]
    _put(out, row, columns[M_RATE_1], rate_1)
    _put(out, row, columns[M_RATE_8], state[p + at.N_8] * PER_S_8 * corrections[event, 1])
    _put(out, row, columns[M_RATE_64], rate_64)
    _put(out, row, columns[M_RATE_512], state[p + at.N_512] * PER_S_512 * corrections[event, 3])
    _put(out, row, columns[M_RATE_4096], rate_4096)
    _put(out, row, columns[M_RATE_65536], state[p + at.N_65536] * PER_S_65536 * corrections[event, 5])
    if columns[M_BURST_SHORT] >= 0:
        out[row, columns[M_BURST_SHORT]] = np.float32(rate_1 / rate_64)
    _put(out, row, columns[M_BURST_LONG], rate_64 / rate_4096)
    _put(out, row, columns[M_GAP], gap)
    _put_spread(
        out, row, columns[M_GAP_MEAN_64], columns[M_GAP_STD_64],
        state[p + at.GAP_N_64], state[p + at.GAP_S_64], state[p + at.GAP_Q_64],
    )  # fmt: skip
    _put_spread(
        out, row, columns[M_GAP_MEAN], columns[M_GAP_STD], state[p + at.GAP_N], state[p + at.GAP_S], state[p + at.GAP_Q]
    )
    _put(out, row, columns[M_IN_FLIGHT], state[p + at.IN_FLIGHT])
    _put(out, row, columns[M_SEEN], state[p + at.TOTAL])
    _put(out, row, columns[M_AGE], (state[p + at.LAST] - state[p + at.BORN]) * 1e-6)
    per_request = 1.0 / state[p + at.N]
    _put(out, row, columns[M_POST], state[p + at.POSTS] * per_request)
    _put(out, row, columns[M_REFERER], state[p + at.REFERERS] * per_request)
    _put(out, row, columns[M_ACCOUNT_AGE], state[p + at.AGE_S] / state[p + at.AGE_N])
    per_answer = 1.0 / state[p + at.DONE] if state[p + at.DONE] > 0.0 else NAN
    _put(out, row, columns[M_AUTH], state[p + at.AUTH] * per_answer)
    _put(out, row, columns[M_MISSING], state[p + at.MISSING] * per_answer)
    if columns[M_OUT_MEAN] >= 0:
        _put(
            out,
            row,
            columns[M_OUT_MEAN],
            state[p + at.OUT_S] / state[p + at.OUT_N] if state[p + at.OUT_N] > 0.0 else NAN,
        )
    if columns[M_PATHS] >= 0:
        _put(out, row, columns[M_PATHS], _distinct(sketch, q + at.PATHS, at.PATHS_WORDS, _COUNT_128))
    if columns[M_FINGERPRINTS] >= 0:
        _put(
            out, row, columns[M_FINGERPRINTS], _distinct(sketch, q + at.FINGERPRINTS, at.FINGERPRINTS_WORDS, _COUNT_64)
        )
    if columns[M_CLIENTS] >= 0:
        _put(out, row, columns[M_CLIENTS], _distinct(sketch, q + at.CLIENTS, at.CLIENTS_WORDS, _COUNT_256))
    if columns[M_ADDRESSES] >= 0:
        _put(out, row, columns[M_ADDRESSES], _distinct(sketch, q + at.ADDRESSES, at.ADDRESSES_WORDS, _COUNT_256))
    if columns[M_CREDENTIALS] >= 0:
        _put(out, row, columns[M_CREDENTIALS], _distinct(sketch, q + at.CREDENTIALS, at.CREDENTIALS_WORDS, _COUNT_64))
    if columns[M_TEMPLATES] >= 0:
        _put(out, row, columns[M_TEMPLATES], _distinct(sketch, q + at.TEMPLATES, at.TEMPLATES_WORDS, _COUNT_128))
    if own:
        _read_own(state, p, sketch, q, per_request, per_answer, corrections, event, columns, out, row)


@njit(cache=True, nogil=True, error_model="numpy")
def _read_own(state, p, sketch, q, per_request, per_answer, corrections, event, columns, out, row):
    _put(out, row, columns[M_OTHER_METHOD], state[p + at.OTHER_METHODS] * per_request)
    _put(out, row, columns[M_ASSET], state[p + at.ASSETS] * per_request)
    _put(out, row, columns[M_PROBE], state[p + at.PROBES] * per_request)
    _put(out, row, columns[M_QUERY], state[p + at.QUERIES] * per_request)
    _put(out, row, columns[M_REPEAT], state[p + at.REPEATS] * per_request)
    _put(out, row, columns[M_REVISIT], state[p + at.REVISITS] * per_request)
    _put_spread(
        out,
        row,
        columns[M_DEPTH_MEAN],
        columns[M_DEPTH_STD],
        state[p + at.N],
        state[p + at.DEPTH_S],
        state[p + at.DEPTH_Q],
    )
    _put_spread(
        out,
        row,
        columns[M_LENGTH_MEAN],
        columns[M_LENGTH_STD],
        state[p + at.N],
        state[p + at.LENGTH_S],
        state[p + at.LENGTH_Q],
    )
    _put(out, row, columns[M_DECLARED], state[p + at.DECLARED_BOTS] * per_request)
    _put(out, row, columns[M_SDK], state[p + at.SDKS] * per_request)
    _put(out, row, columns[M_BROWSER], state[p + at.BROWSERS] * per_request)
    _put(out, row, columns[M_NO_AGENT], state[p + at.NO_AGENTS] * per_request)
    _put_spread(
        out, row, columns[M_REQUEST_MEAN], columns[M_REQUEST_STD],
        state[p + at.REQUEST_N], state[p + at.REQUEST_S], state[p + at.REQUEST_Q],
    )  # fmt: skip
    _put_spread(
        out, row, columns[M_RESPONSE_MEAN], columns[M_RESPONSE_STD],
        state[p + at.RESPONSE_N], state[p + at.RESPONSE_S], state[p + at.RESPONSE_Q],
    )  # fmt: skip
    _put_spread(
        out, row, columns[M_DURATION_MEAN], columns[M_DURATION_STD],
        state[p + at.DURATION_N], state[p + at.DURATION_S], state[p + at.DURATION_Q],
    )  # fmt: skip
    _put_spread(
        out, row, columns[M_PROMPT_MEAN], columns[M_PROMPT_STD],
        state[p + at.PROMPT_N], state[p + at.PROMPT_S], state[p + at.PROMPT_Q],
    )  # fmt: skip
    _put_spread(
        out,
        row,
        columns[M_PAGE_MEAN],
        columns[M_PAGE_STD],
        state[p + at.PAGE_N],
        state[p + at.PAGE_S],
        state[p + at.PAGE_Q],
    )
    per_page = 1.0 / state[p + at.PAGE_N] if state[p + at.PAGE_N] > 0.0 else NAN
    _put(out, row, columns[M_PAGE_1], state[p + at.PAGE_1] * per_page)
    _put(out, row, columns[M_PAGE_8], state[p + at.PAGE_8] * per_page)
    _put(out, row, columns[M_PAGE_64], state[p + at.PAGE_64] * per_page)
    _put(out, row, columns[M_CAP_MEAN], state[p + at.CAP_S] / state[p + at.CAP_N] if state[p + at.CAP_N] > 0.0 else NAN)
    _put(out, row, columns[M_USED], state[p + at.USED] / state[p + at.ASKED] if state[p + at.ASKED] > 0.0 else NAN)
    per_answer_64 = 1.0 / state[p + at.DONE_64] if state[p + at.DONE_64] > 0.0 else NAN
    _put(out, row, columns[M_AUTH_64], state[p + at.AUTH_64] * per_answer_64)
    _put(out, row, columns[M_LIMITED_64], state[p + at.LIMITED_64] * per_answer_64)
    _put(out, row, columns[M_LIMITED], state[p + at.LIMITED] * per_answer)
    _put(out, row, columns[M_CLIENT_ERROR], state[p + at.CLIENT_ERRORS] * per_answer)
    _put(out, row, columns[M_SERVER_ERROR], state[p + at.SERVER_ERRORS] * per_answer)
    tokens_known = state[p + at.IN_N] > 0.0
    _put(
        out, row, columns[M_IN_RATE_64], state[p + at.IN_64] * PER_S_64 * corrections[event, 2] if tokens_known else NAN
    )
    _put(out, row, columns[M_IN_RATE], state[p + at.IN_S] * PER_S_4096 * corrections[event, 4] if tokens_known else NAN)
    _put(out, row, columns[M_IN_MEAN], state[p + at.IN_S] / state[p + at.IN_N] if tokens_known else NAN)
    tokens_known = state[p + at.OUT_N] > 0.0
    _put(
        out,
        row,
        columns[M_OUT_RATE_64],
        state[p + at.OUT_64] * PER_S_64 * corrections[event, 2] if tokens_known else NAN,
    )
    _put(
        out, row, columns[M_OUT_RATE], state[p + at.OUT_S] * PER_S_4096 * corrections[event, 4] if tokens_known else NAN
    )
    _put(
        out,
        row,
        columns[M_OUT_RATE_DAY],
        state[p + at.OUT_65536] * PER_S_65536 * corrections[event, 5] if tokens_known else NAN,
    )
    _put(out, row, columns[M_MODELS], _distinct(sketch, q + at.MODELS, at.MODELS_WORDS, _COUNT_64))


@njit(cache=True, nogil=True)
def find(tags, first, ways, key):
    """Return the slot of `key` in the set that begins at `first`, or -1."""
    for slot in range(first, first + ways):
        if tags[slot] == key:
            return slot
    return -1


@njit(cache=True, nogil=True)
def place(tags, first, ways, key, state, first_number, width, now):
    """Return the slot that `key` takes: a free one, else that of the least decayed count (lowest slot on ties).

    The count decays with the longest half-life, so a one-shot key goes before a client that has been coming back.
    """
    victim, least = first, np.inf
    for slot in range(first, first + ways):
        if tags[slot] == ZERO:
            victim = slot
            break
        p = first_number + slot * width
        count = state[p + at.N_65536] * exp2_negative(min(state[p + at.LAST] - now, 0.0) / LONGEST_US)
        if count < least:
            victim, least = slot, count
    tags[victim] = key
    return victim


@njit(cache=True, nogil=True, inline="always")
def _prefetch_profile(tags, first, ways, key, state, first_number, width, sketch):
    slot = find(tags, first, ways, key)
    if slot >= 0:
        p, q = first_number + slot * width, slot * at.SKETCH_WIDTH
        for i in range(p, p + width, 8):
            prefetch(state, i)
        for i in range(q, q + at.SKETCH_WIDTH, 8):
            prefetch(sketch, i)


@njit(cache=True, nogil=True, error_model="numpy")
def run(entity, shard, shards, begin, end, times, kinds, events, hashes, values, serials, corrections, rows,
        bases, masks, all_ways, widths, starts, all_columns, state, sketch, tags, out):  # fmt: skip
    """Move one shard of the profiles of one entity kind through transitions [begin, end); read a row at each arrival.

    times float64[m] (µs), kinds uint8[m], events int64[m] (row of the event arrays); hashes uint64[n, HASHES], values
    float64[n, VALUES], serials int64[n], corrections float64[n, 6], rows int64[n] (row of `out`, -1: none wanted).
    bases, masks, all_ways, widths, starts int64[6] and all_columns int64[6, measures] describe the tables. A key's set
    is `(key >> 8) & mask` of its entity, and shard s of S owns the sets that leave s when divided by S. The numbers of
    slot b + i of entity e, b its first, lie in `state` from starts[e] + i * widths[e] on, and those of slot i in
    `sketch` from i * SKETCH_WIDTH on.
    """
    own = entity == 0
    base, mask, ways, columns = bases[entity], np.uint64(masks[entity]), all_ways[entity], all_columns[entity]
    width, first_number = widths[entity], starts[entity] - bases[entity] * widths[entity]
    for i in range(begin, end):
        if i + 2 * AHEAD < end and entity < EVERYONE:
            first = base + np.int64((hashes[events[i + 2 * AHEAD], entity] >> np.uint64(8)) & mask) * ways
            for slot in range(first, first + ways, 8):
                prefetch(tags, slot)
            key = hashes[events[i + AHEAD], entity]
            first = base + np.int64((key >> np.uint64(8)) & mask) * ways
            _prefetch_profile(tags, first, ways, key, state, first_number, width, sketch)
        event = events[i]
        key = hashes[event, entity] if entity < EVERYONE else ONE
        if key == ZERO:
            continue
        position = np.int64((key >> np.uint64(8)) & mask)
        if shards > 1 and position % shards != shard:
            continue
        first = base + position * ways
        slot = find(tags, first, ways, key)
        kind = kinds[i]
        if kind != at.ARRIVAL:
            p, q = first_number + slot * width, slot * at.SKETCH_WIDTH
            if slot >= 0 and state[p + at.SERIAL] <= serials[event]:
                advance(state, p, sketch, q, max(times[i], state[p + at.LAST]), own)
                if kind == at.COMPLETION:
                    complete(state, p, values, event, own)
                else:
                    state[p + at.IN_FLIGHT] -= 1.0
            continue
        now = times[i]
        known = slot >= 0
        if not known:
            slot = place(tags, first, ways, key, state, first_number, width, now)
        p, q = first_number + slot * width, slot * at.SKETCH_WIDTH
        if not known:
            begin_profile(state, p, width, sketch, q, now, serials[event])
        now = max(now, state[p + at.LAST])
        advance(state, p, sketch, q, now, own)
        gap = arrive(state, p, sketch, q, now, hashes, values, event, own)
        row = rows[event]
        if row >= 0:
            read(state, p, sketch, q, gap, corrections, event, columns, own, out, row)


@njit(cache=True, nogil=True)
def begin_profile(state, p, width, sketch, q, now, serial):
    """Make the profile at `p` one that begins with the arrival `serial` at `now`."""
    for i in range(p, p + width):
        state[i] = 0.0
    for i in range(q, q + at.SKETCH_WIDTH):
        sketch[i] = ZERO
    state[p + at.LAST] = now
    state[p + at.BORN] = now
    state[p + at.SERIAL] = serial
    state[p + at.PREVIOUS] = -1.0
    state[p + at.GENERATION] = math.floor(now / GENERATION_US)
    state[p + at.PREVIOUS_PAGE] = -1.0


@njit(cache=True, nogil=True, error_model="numpy")
def merge(state, sketch, other_state, other_sketch, own):
    """Add another profile of the same key to this one, both brought to the later of their newest transitions.

    Each is float64[width] and uint64[SKETCH_WIDTH] (`Engine.profile`). Sums, the requests in flight and the totals add;
    bitmaps unite; the profile is as old as the older of the two. The result equals the profile of the united stream to about
    1e-9 relative, except for the times between requests, which each side has taken between its own arrivals.
    """
    now = max(state[at.LAST], other_state[at.LAST])
    theirs, their_sketch = other_state.copy(), other_sketch.copy()
    advance(state, 0, sketch, 0, now, own)
    advance(theirs, 0, their_sketch, 0, now, own)
    for i in range(at.SUMS, len(state)):
        state[i] += theirs[i]
    state[at.BORN] = min(state[at.BORN], theirs[at.BORN])
    state[at.SERIAL] = min(state[at.SERIAL], theirs[at.SERIAL])
    if theirs[at.PREVIOUS] > state[at.PREVIOUS]:
        state[at.PREVIOUS] = theirs[at.PREVIOUS]
        sketch[at.NEWEST_PATH] = their_sketch[at.NEWEST_PATH]
    state[at.PREVIOUS_PAGE] = max(state[at.PREVIOUS_PAGE], theirs[at.PREVIOUS_PAGE])
    for i in range(2 * at.BITMAPS):
        sketch[i] |= their_sketch[i]


@njit(cache=True, nogil=True, error_model="numpy")
def correct(times, start, corrections):
    """Fill float64[n, 6] with 1 / (1 - 2^(-age/h)) for the engine's age at each arrival, at least 1 s."""
    for i in range(len(times)):
        age = max((times[i] - start) * 1e-6, 1.0)
        for j in range(6):
            lives = age / HALF_LIVES_S[j]
            corrections[i, j] = 1.0 / (1.0 - exp2_negative(-lives)) if lives < 54.0 else 1.0


_REQUEST_VALUES = np.array([
    at.V_POST, at.V_DEPTH, at.V_LENGTH, at.V_QUERY, at.V_ASSET, at.V_PROBE, at.V_REFERER, at.V_AGENT, at.V_REQUEST,
    at.V_CAP, at.V_AGE, at.V_PROMPT,
])  # fmt: skip
assert len(_REQUEST_VALUES) == len(REQUEST), "each property of a request has its value"


@njit(cache=True, nogil=True, error_model="numpy")
def finish(events, values, rows, above, below, first_ratio, out):
    """Fill the columns of the request itself and the ratios of columns of the same row, float32 by float32."""
    for event in events:
        row = rows[event]
        if row < 0:
            continue
        for j in range(len(_REQUEST_VALUES)):
            out[row, j] = np.float32(values[event, _REQUEST_VALUES[j]])
        if out[row, 0] < 0.0:
            out[row, 0] = np.float32(0.0)
        for j in range(len(above)):
            out[row, first_ratio + j] = out[row, above[j]] / out[row, below[j]]


@njit(cache=True, nogil=True, error_model="numpy")
def run_all(entities, shard, shards, times, kinds, events, hashes, values, serials, corrections, rows,
            bases, masks, all_ways, widths, starts, all_columns, state, sketch, tags, out):  # fmt: skip
    """`run` for each of `entities` int64[], in blocks whose event rows stay in the cache from one entity to the next.

    Profiles are chosen and moved by the history of their own set alone, so any order that keeps that of each set gives
    the same profiles and rows: the blocks and the shards change nothing.
    """
    for begin in range(0, len(times), BLOCK):
        end = min(begin + BLOCK, len(times))
        for entity in entities:
            run(entity, shard, shards, begin, end, times, kinds, events, hashes, values, serials, corrections, rows,
                bases, masks, all_ways, widths, starts, all_columns, state, sketch, tags, out)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def run_one(time, kind, event, hashes, values, serials, corrections, rows,
            bases, masks, all_ways, widths, starts, all_columns, state, sketch, tags,
            above, below, first_ratio, out):  # fmt: skip
    """Move all profiles of one transition: what `run` and `finish` do for many, in one call."""
    times, kinds, events = np.full(1, time), np.full(1, kind), np.full(1, event)
    for entity in range(len(bases)):
        run(entity, 0, 1, 0, 1, times, kinds, events, hashes, values, serials, corrections, rows,
            bases, masks, all_ways, widths, starts, all_columns, state, sketch, tags, out)  # fmt: skip
    if kind == at.ARRIVAL:
        finish(events, values, rows, above, below, first_ratio, out)
