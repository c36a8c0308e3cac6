"""The kernel: how one transition moves a profile, how a profile is read, and the loop over a table of profiles.

Sums decay by forward decay (Cormode et al., ICDE 2009, section "exponential"): what happens at time t is added with the
weight w(t) = 2^((t - L) / h), L a landmark shared by all profiles, and so nothing that is already there moves. Means and
shares are ratios of two sums, where the landmark cancels; a rate is a sum over the integral of w since the engine began.
Landmarks move on every 512 half-lives: `rebase`. Distinct counts are linear counting (Whang et al., TODS 1990) over two
rotating generations. Updating and reading are O(1), and reading never writes.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
from numba import njit

from classifier.features import layout as at
from classifier.features.numerics import count_bits, exp2, log2_positive, prefetch
from classifier.features.spec import ENTITIES, GENERATION_S, HALF_LIVES_S, MEASURE_INDEX, REQUEST

_compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
"""No reference counts in the kernel: it allocates nothing, and counting would take as long as the work."""
_inlined = njit(cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False)
NAN = math.nan
ONE = np.uint64(1)
ZERO = np.uint64(0)
BLOCK = 1024
"""Transitions after which the next entity kind has its turn: their event rows fit a core's cache."""
AHEAD = 5
"""Transitions between asking for a profile's cache lines and using them."""
EVERYONE = ENTITIES.index("everyone")

EPOCH_LIVES = 512
"""Half-lives between two landmarks: weights stay below 2^512, and a sum of one epoch is 2^-512 of itself in the next."""
EPOCH_US = EPOCH_LIVES * HALF_LIVES_S[0] * 1_000_000
"""Epochs are counted in those of the shortest half-life; the longer ones begin at every 8th, 64th … of them."""
GENERATION_US = GENERATION_S * 1_000_000
_SHIFTS = np.array([h.bit_length() - 1 for h in HALF_LIVES_S])
assert all(1 << s == h for s, h in zip(_SHIFTS.tolist(), HALF_LIVES_S, strict=True)), "half-lives are powers of two"
_LIVES_PER_US = np.array([1e-6 / h for h in HALF_LIVES_S])
_PER_S = np.array([0.6931471805599453 / h for h in HALF_LIVES_S])
"""A steady rate r keeps a decayed count of r h / ln 2."""
_FIRST_SECOND = np.array([1.0 - 2.0 ** (-1.0 / h) for h in HALF_LIVES_S])
_SHRINK = math.ldexp(1.0, -EPOCH_LIVES)
_GONE = math.ldexp(1.0, -1000)
"""What decays below this is 0: far from denormal numbers, whose ratios would be rough."""

# A moment: what all profiles need to know of the time of a transition.
W_1, W_8, W_64, W_512, W_4096, W_65536 = range(6)  # weights
R_1, R_8, R_64, R_512, R_4096, R_65536 = range(6, 12)  # a decayed count times this is a rate, 1/s
M_EPOCH, M_GENERATION = 12, 13
MOMENT = 16


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


@_inlined
def _weigh(moments, i, time, arrival, origin):
    """Fill moment `i` for `time` (µs); rates, and the weights that only arrivals need, where it is one."""
    whole = np.int64(time)
    epoch = whole // EPOCH_US
    moments[i, M_EPOCH] = epoch
    moments[i, M_GENERATION] = whole // GENERATION_US
    for j in range(6):
        if arrival or j in (W_64, W_4096, W_65536):
            number = epoch >> _SHIFTS[j]
            weight = exp2((whole - (number << _SHIFTS[j]) * EPOCH_US) * _LIVES_PER_US[j])
            moments[i, j] = weight
            if arrival:
                since = number - origin[j, 0]
                begun = origin[j, 1] * (1.0 if since == 0.0 else _SHRINK if since == 1.0 else 0.0)
                lived = weight - begun if since >= 0.0 else 0.0
                moments[i, R_1 + j] = _PER_S[j] / max(lived, weight * _FIRST_SECOND[j])


@_inlined
def _begin(origin, start):
    """Fill epoch and weight of the engine's first moment (µs) per half-life, float64[6, 2].

    An engine that has just started has not seen a whole half-life: its rates divide by the weight that it has lived, at
    least a second of it.
    """
    whole = np.int64(start)
    for j in range(6):
        number = (whole // EPOCH_US) >> _SHIFTS[j]
        origin[j, 0] = number
        origin[j, 1] = exp2((whole - (number << _SHIFTS[j]) * EPOCH_US) * _LIVES_PER_US[j])


@_inlined
def _shrink(state, slot, begin, end, epochs):
    for i in range(begin, end):
        value = state[slot, i] * _SHRINK
        state[slot, i] = value if epochs == 1 and abs(value) >= _GONE else 0.0


@_compiled
def rebase(state, slot, epoch, own):
    """Write the sums of a profile in a later epoch (float64, counted in the shortest half-life's)."""
    old, new = np.int64(state[slot, at.EPOCH]), np.int64(epoch)
    state[slot, at.EPOCH] = epoch
    if own:
        _shrink(state, slot, at.N_1, at.N_1 + 1, new - old)
    if new >> 3 != old >> 3:
        _shrink(state, slot, at.N_8, at.N_8 + 1, (new >> 3) - (old >> 3))
    if new >> 6 != old >> 6:
        epochs = (new >> 6) - (old >> 6)
        _shrink(state, slot, at.N_64, at.N_64 + 1, epochs)
        if own:
            _shrink(state, slot, at.DONE_64, at.GAP_Q_64 + 1, epochs)
    if own and new >> 9 != old >> 9:
        _shrink(state, slot, at.N_512, at.N_512 + 1, (new >> 9) - (old >> 9))
    if new >> 12 != old >> 12:
        epochs = (new >> 12) - (old >> 12)
        _shrink(state, slot, at.DONE, at.N + 1, epochs)
        _shrink(state, slot, at.GAP_N, at.REFERERS + 1, epochs)
        if own:
            _shrink(state, slot, at.LIMITED, at.LONG_END, epochs)
    if new >> 16 != old >> 16:
        epochs = (new >> 16) - (old >> 16)
        _shrink(state, slot, at.N_65536, at.N_65536 + 1, epochs)
        if own:
            _shrink(state, slot, at.OUT_65536, at.OUT_65536 + 1, epochs)


@_compiled
def rotate(state, words, slot, generation, own):
    """Turn the sketches of a profile to a later generation."""
    begin = at.OWN_SKETCH if own else at.GROUP_SKETCH
    size = at.OWN_BITMAPS if own else at.GROUP_BITMAPS
    next_one = generation == state[slot, at.GENERATION] + 1.0
    for i in range(begin, begin + size):
        words[slot, size + i] = words[slot, i] if next_one else ZERO
        words[slot, i] = ZERO
    state[slot, at.GENERATION] = generation


@_inlined
def _bring_to(state, words, slot, now, moments, m, own):
    """Make `now`, not before the profile's newest transition, its newest."""
    state[slot, at.LAST] = now
    if moments[m, M_EPOCH] != state[slot, at.EPOCH]:
        rebase(state, slot, moments[m, M_EPOCH], own)
    if moments[m, M_GENERATION] != state[slot, at.GENERATION]:
        rotate(state, words, slot, moments[m, M_GENERATION], own)


@_inlined
def _mark(words, slot, begin, size, length, key):
    """Set the key's bit in a bitmap of `length` words, unless the key is absent; `size` words are a generation.

    Return 1.0 if it was set already in either generation, else 0.0.
    """
    bit = (key >> np.uint64(32)) & np.uint64(64 * length - 1)
    word = begin + np.int64(bit >> np.uint64(6))
    mask = (ONE if key != ZERO else ZERO) << (bit & np.uint64(63))
    seen = ((words[slot, word] | words[slot, size + word]) & mask) != ZERO
    words[slot, word] |= mask
    return 1.0 if seen else 0.0


@_inlined
def _gap(now, previous):
    """Return log2 of the seconds between, at least 1 ms; NaN before the first (-1)."""
    return log2_positive(max((now - previous) * 1e-6, 1e-3)) if previous >= 0.0 else NAN


@_inlined
def _known(value):
    return 0.0 if math.isnan(value) else 1.0


@_inlined
def _or_0(value):
    return 0.0 if math.isnan(value) else value


@_inlined
def _is(truth):
    return 1.0 if truth else 0.0


@_inlined
def _arrive(state, slot, now, moments, m, values, event, gap):
    """Record an arrival in the sums that every profile has."""
    w = moments[m, W_4096]
    state[slot, at.N_8] += moments[m, W_8]
    state[slot, at.N_64] += moments[m, W_64]
    state[slot, at.N] += w
    state[slot, at.N_65536] += moments[m, W_65536]
    state[slot, at.TOTAL] += 1.0
    state[slot, at.IN_FLIGHT] += 1.0
    state[slot, at.GAP_N] += w * _known(gap)
    state[slot, at.GAP_S] += w * _or_0(gap)
    state[slot, at.GAP_Q] += w * _or_0(gap * gap)
    state[slot, at.PREVIOUS] = now
    state[slot, at.AGE_N] += w * _known(values[event, at.V_AGE])
    state[slot, at.AGE_S] += w * _or_0(values[event, at.V_AGE])
    state[slot, at.POSTS] += w * _is(values[event, at.V_POST] == 1.0)
    state[slot, at.REFERERS] += w * values[event, at.V_REFERER]


@_inlined
def _arrive_own(state, words, slot, now, moments, m, hashes, values, event, gap):
    """Record an arrival in the sums and sketches that only clients have."""
    w, short = moments[m, W_4096], moments[m, W_64]
    state[slot, at.N_1] += moments[m, W_1]
    state[slot, at.N_512] += moments[m, W_512]
    state[slot, at.GAP_N_64] += short * _known(gap)
    state[slot, at.GAP_S_64] += short * _or_0(gap)
    state[slot, at.GAP_Q_64] += short * _or_0(gap * gap)
    begin, size = at.OWN_SKETCH, at.OWN_BITMAPS
    _mark(words, slot, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, hashes[event, at.H_ADDRESS])
    _mark(words, slot, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, hashes[event, at.H_FINGERPRINT])
    _mark(words, slot, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, hashes[event, at.H_TEMPLATE])
    _mark(words, slot, begin + at.MODELS, size, at.MODELS_WORDS, hashes[event, at.H_MODEL])
    _mark(words, slot, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, hashes[event, at.H_CREDENTIAL])
    path = hashes[event, at.H_PATH]
    state[slot, at.REVISITS] += w * _mark(words, slot, begin + at.PATHS, size, at.PATHS_WORDS, path)
    state[slot, at.REPEATS] += w * _is(words[slot, at.NEWEST_PATH] == path)
    words[slot, at.NEWEST_PATH] = path
    state[slot, at.OTHER_METHODS] += w * _is(values[event, at.V_POST] < 0.0)
    state[slot, at.ASSETS] += w * values[event, at.V_ASSET]
    state[slot, at.PROBES] += w * values[event, at.V_PROBE]
    state[slot, at.QUERIES] += w * values[event, at.V_QUERY]
    depth, length = values[event, at.V_DEPTH], values[event, at.V_LENGTH]
    state[slot, at.DEPTH_S] += w * depth
    state[slot, at.DEPTH_Q] += w * (depth * depth)
    state[slot, at.LENGTH_S] += w * length
    state[slot, at.LENGTH_Q] += w * (length * length)
    agent = values[event, at.V_AGENT]
    state[slot, at.NO_AGENTS] += w * _is(agent == 0.0)
    state[slot, at.BROWSERS] += w * _is(agent == 1.0)
    state[slot, at.SDKS] += w * _is(agent == 2.0)
    state[slot, at.DECLARED_BOTS] += w * _is(agent == 3.0)
    value = values[event, at.V_REQUEST]
    state[slot, at.REQUEST_N] += w * _known(value)
    state[slot, at.REQUEST_S] += w * _or_0(value)
    state[slot, at.REQUEST_Q] += w * _or_0(value * value)
    value = values[event, at.V_CAP]
    state[slot, at.CAP_N] += w * _known(value)
    state[slot, at.CAP_S] += w * _or_0(value)
    value = values[event, at.V_PROMPT]
    state[slot, at.PROMPT_N] += w * _known(value)
    state[slot, at.PROMPT_S] += w * _or_0(value)
    state[slot, at.PROMPT_Q] += w * _or_0(value * value)
    if values[event, at.V_ASSET] == 1.0:
        return
    previous = state[slot, at.PREVIOUS_PAGE]
    page_gap = gap if previous == state[slot, at.PREVIOUS] else _gap(now, previous)
    elapsed = now - previous if previous >= 0.0 else np.inf
    state[slot, at.PAGE_N] += w * _known(page_gap)
    state[slot, at.PAGE_S] += w * _or_0(page_gap)
    state[slot, at.PAGE_Q] += w * _or_0(page_gap * page_gap)
    state[slot, at.PAGE_1] += w * _is(elapsed < 1e6)
    state[slot, at.PAGE_8] += w * _is(1e6 <= elapsed < 8e6)
    state[slot, at.PAGE_64] += w * _is(8e6 <= elapsed < 64e6)
    state[slot, at.PREVIOUS_PAGE] = now


@_inlined
def _mark_group(words, slot, hashes, event, columns):
    """Mark the sketches that are read of this kind of group."""
    begin, size = at.GROUP_SKETCH, at.GROUP_BITMAPS
    if columns[M_CLIENTS] >= 0:
        _mark(words, slot, begin + at.CLIENTS, size, at.CLIENTS_WORDS, hashes[event, at.H_CLIENT])
    if columns[M_ADDRESSES] >= 0:
        _mark(words, slot, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, hashes[event, at.H_ADDRESS])
    if columns[M_FINGERPRINTS] >= 0:
        _mark(words, slot, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, hashes[event, at.H_FINGERPRINT])
    if columns[M_TEMPLATES] >= 0:
        _mark(words, slot, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, hashes[event, at.H_TEMPLATE])
    if columns[M_CREDENTIALS] >= 0:
        _mark(words, slot, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, hashes[event, at.H_CREDENTIAL])
    if columns[M_PATHS] >= 0:
        _mark(words, slot, begin + at.PATHS, size, at.PATHS_WORDS, hashes[event, at.H_PATH])


@_inlined
def _complete(state, slot, moments, m, values, event, own):
    """Record a completion. One that botsieve refused ends the request in flight and adds nothing else."""
    state[slot, at.IN_FLIGHT] -= 1.0
    if values[event, at.V_REFUSED] == 1.0:
        return
    w = moments[m, W_4096]
    status, out = values[event, at.V_STATUS], values[event, at.V_OUT]
    auth = _is(status == 401.0 or status == 403.0)
    state[slot, at.DONE] += w * _known(status)
    state[slot, at.AUTH] += w * auth
    state[slot, at.MISSING] += w * _is(status == 404.0)
    state[slot, at.OUT_N] += w * _known(out)
    state[slot, at.OUT_S] += w * _or_0(out)
    if not own:
        return
    short = moments[m, W_64]
    limited = _is(status == 429.0)
    other = status >= 400.0 and status < 500.0 and status != 401.0 and status != 403.0 and status != 404.0
    state[slot, at.OUT_65536] += moments[m, W_65536] * _or_0(out)
    state[slot, at.DONE_64] += short * _known(status)
    state[slot, at.AUTH_64] += short * auth
    state[slot, at.LIMITED_64] += short * limited
    state[slot, at.LIMITED] += w * limited
    state[slot, at.CLIENT_ERRORS] += w * (_is(other) - limited)
    state[slot, at.SERVER_ERRORS] += w * _is(status >= 500.0)
    value = values[event, at.V_IN]
    state[slot, at.IN_64] += short * _or_0(value)
    state[slot, at.IN_N] += w * _known(value)
    state[slot, at.IN_S] += w * _or_0(value)
    state[slot, at.OUT_64] += short * _or_0(out)
    both = w * _known(out + values[event, at.V_ASKED])
    state[slot, at.ASKED] += both * _or_0(values[event, at.V_ASKED])
    state[slot, at.USED] += both * _or_0(out)
    value = values[event, at.V_RESPONSE]
    state[slot, at.RESPONSE_N] += w * _known(value)
    state[slot, at.RESPONSE_S] += w * _or_0(value)
    state[slot, at.RESPONSE_Q] += w * _or_0(value * value)
    value = values[event, at.V_DURATION]
    state[slot, at.DURATION_N] += w * _known(value)
    state[slot, at.DURATION_S] += w * _or_0(value)
    state[slot, at.DURATION_Q] += w * _or_0(value * value)


@_inlined
def _share(part, whole):
    return part / whole if whole > 0.0 else NAN


@_inlined
def _put(out, row, column, value):
    if column >= 0:
        out[row, column] = np.float32(value)


@_inlined
def _spread(mean, squares, per):
    """Return the deviation from the mean, the sum of squares and 1 over the count; NaN stays NaN."""
    variance = squares * per - mean * mean
    return math.sqrt(0.0 if variance < 0.0 else variance)


@_inlined
def _put_spread(out, row, mean_column, std_column, state, slot, first):
    """Write mean and deviation from count, sum and sum of squares, which begin at `first`."""
    per = _share(1.0, state[slot, first])
    mean = state[slot, first + 1] * per
    out[row, mean_column] = np.float32(mean)
    out[row, std_column] = np.float32(_spread(mean, state[slot, first + 2], per))


@_inlined
def _distinct(words, slot, begin, size, length, table):
    ones = 0
    for i in range(begin, begin + length):
        ones += count_bits(words[slot, i] | words[slot, size + i])
    return table[ones]


@_inlined
def _read(state, words, slot, moments, m, columns, own, out, row):
    """Write the measures that clients and groups have, at a profile's newest transition, an arrival.

    `columns` int64[measures]: the column of each measure in `out`, -1 where it is no feature of this entity.
    """
    begin = at.OWN_SKETCH if own else at.GROUP_SKETCH
    size = at.OWN_BITMAPS if own else at.GROUP_BITMAPS
    rate_64, rate_4096 = state[slot, at.N_64] * moments[m, R_64], state[slot, at.N] * moments[m, R_4096]
    _put(out, row, columns[M_RATE_8], state[slot, at.N_8] * moments[m, R_8])
    _put(out, row, columns[M_RATE_64], rate_64)
    _put(out, row, columns[M_RATE_4096], rate_4096)
    _put(out, row, columns[M_BURST_LONG], rate_64 / rate_4096)
    if columns[M_GAP_STD] >= 0:
        per = _share(1.0, state[slot, at.GAP_N])
        mean = state[slot, at.GAP_S] * per
        _put(out, row, columns[M_GAP_MEAN], mean)
        out[row, columns[M_GAP_STD]] = np.float32(_spread(mean, state[slot, at.GAP_Q], per))
    _put(out, row, columns[M_IN_FLIGHT], state[slot, at.IN_FLIGHT])
    _put(out, row, columns[M_SEEN], state[slot, at.TOTAL])
    _put(out, row, columns[M_AGE], (state[slot, at.LAST] - state[slot, at.BORN]) * 1e-6)
    per_request = 1.0 / state[slot, at.N]
    _put(out, row, columns[M_POST], state[slot, at.POSTS] * per_request)
    _put(out, row, columns[M_REFERER], state[slot, at.REFERERS] * per_request)
    _put(out, row, columns[M_ACCOUNT_AGE], _share(state[slot, at.AGE_S], state[slot, at.AGE_N]))
    per_answer = _share(1.0, state[slot, at.DONE])
    _put(out, row, columns[M_AUTH], state[slot, at.AUTH] * per_answer)
    _put(out, row, columns[M_MISSING], state[slot, at.MISSING] * per_answer)
    if columns[M_OUT_MEAN] >= 0:
        out[row, columns[M_OUT_MEAN]] = np.float32(_share(state[slot, at.OUT_S], state[slot, at.OUT_N]))
    if columns[M_PATHS] >= 0:
        count = _distinct(words, slot, begin + at.PATHS, size, at.PATHS_WORDS, _COUNT_128)
        out[row, columns[M_PATHS]] = np.float32(count)
    if columns[M_FINGERPRINTS] >= 0:
        count = _distinct(words, slot, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, _COUNT_64)
        out[row, columns[M_FINGERPRINTS]] = np.float32(count)
    if columns[M_ADDRESSES] >= 0:
        count = _distinct(words, slot, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, _COUNT_256)
        out[row, columns[M_ADDRESSES]] = np.float32(count)
    if columns[M_CREDENTIALS] >= 0:
        count = _distinct(words, slot, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, _COUNT_64)
        out[row, columns[M_CREDENTIALS]] = np.float32(count)
    if columns[M_TEMPLATES] >= 0:
        count = _distinct(words, slot, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, _COUNT_128)
        out[row, columns[M_TEMPLATES]] = np.float32(count)
    if columns[M_CLIENTS] >= 0 and not own:
        count = _distinct(words, slot, begin + at.CLIENTS, size, at.CLIENTS_WORDS, _COUNT_256)
        out[row, columns[M_CLIENTS]] = np.float32(count)


@_inlined
def _read_own(state, words, slot, moments, m, gap, columns, out, row):
    """Write the measures that only clients have; all of them are features."""
    rate_1 = state[slot, at.N_1] * moments[m, R_1]
    out[row, columns[M_RATE_1]] = np.float32(rate_1)
    out[row, columns[M_RATE_512]] = np.float32(state[slot, at.N_512] * moments[m, R_512])
    out[row, columns[M_RATE_65536]] = np.float32(state[slot, at.N_65536] * moments[m, R_65536])
    out[row, columns[M_BURST_SHORT]] = np.float32(rate_1 / (state[slot, at.N_64] * moments[m, R_64]))
    out[row, columns[M_GAP]] = np.float32(gap)
    _put_spread(out, row, columns[M_GAP_MEAN_64], columns[M_GAP_STD_64], state, slot, at.GAP_N_64)
    per_request = 1.0 / state[slot, at.N]
    out[row, columns[M_OTHER_METHOD]] = np.float32(state[slot, at.OTHER_METHODS] * per_request)
    out[row, columns[M_ASSET]] = np.float32(state[slot, at.ASSETS] * per_request)
    out[row, columns[M_PROBE]] = np.float32(state[slot, at.PROBES] * per_request)
    out[row, columns[M_QUERY]] = np.float32(state[slot, at.QUERIES] * per_request)
    out[row, columns[M_REPEAT]] = np.float32(state[slot, at.REPEATS] * per_request)
    out[row, columns[M_REVISIT]] = np.float32(state[slot, at.REVISITS] * per_request)
    mean = state[slot, at.DEPTH_S] * per_request
    out[row, columns[M_DEPTH_MEAN]] = np.float32(mean)
    out[row, columns[M_DEPTH_STD]] = np.float32(_spread(mean, state[slot, at.DEPTH_Q], per_request))
    mean = state[slot, at.LENGTH_S] * per_request
    out[row, columns[M_LENGTH_MEAN]] = np.float32(mean)
    out[row, columns[M_LENGTH_STD]] = np.float32(_spread(mean, state[slot, at.LENGTH_Q], per_request))
    out[row, columns[M_NO_AGENT]] = np.float32(state[slot, at.NO_AGENTS] * per_request)
    out[row, columns[M_BROWSER]] = np.float32(state[slot, at.BROWSERS] * per_request)
    out[row, columns[M_SDK]] = np.float32(state[slot, at.SDKS] * per_request)
    out[row, columns[M_DECLARED]] = np.float32(state[slot, at.DECLARED_BOTS] * per_request)
    _put_spread(out, row, columns[M_REQUEST_MEAN], columns[M_REQUEST_STD], state, slot, at.REQUEST_N)
    _put_spread(out, row, columns[M_RESPONSE_MEAN], columns[M_RESPONSE_STD], state, slot, at.RESPONSE_N)
    _put_spread(out, row, columns[M_DURATION_MEAN], columns[M_DURATION_STD], state, slot, at.DURATION_N)
    _put_spread(out, row, columns[M_PROMPT_MEAN], columns[M_PROMPT_STD], state, slot, at.PROMPT_N)
    _put_spread(out, row, columns[M_PAGE_MEAN], columns[M_PAGE_STD], state, slot, at.PAGE_N)
    per_page = _share(1.0, state[slot, at.PAGE_N])
    out[row, columns[M_PAGE_1]] = np.float32(state[slot, at.PAGE_1] * per_page)
    out[row, columns[M_PAGE_8]] = np.float32(state[slot, at.PAGE_8] * per_page)
    out[row, columns[M_PAGE_64]] = np.float32(state[slot, at.PAGE_64] * per_page)
    out[row, columns[M_CAP_MEAN]] = np.float32(_share(state[slot, at.CAP_S], state[slot, at.CAP_N]))
    out[row, columns[M_USED]] = np.float32(_share(state[slot, at.USED], state[slot, at.ASKED]))
    per_answer, per_answer_64 = _share(1.0, state[slot, at.DONE]), _share(1.0, state[slot, at.DONE_64])
    out[row, columns[M_AUTH_64]] = np.float32(state[slot, at.AUTH_64] * per_answer_64)
    out[row, columns[M_LIMITED_64]] = np.float32(state[slot, at.LIMITED_64] * per_answer_64)
    out[row, columns[M_LIMITED]] = np.float32(state[slot, at.LIMITED] * per_answer)
    out[row, columns[M_CLIENT_ERROR]] = np.float32(state[slot, at.CLIENT_ERRORS] * per_answer)
    out[row, columns[M_SERVER_ERROR]] = np.float32(state[slot, at.SERVER_ERRORS] * per_answer)
    known = state[slot, at.IN_N] > 0.0
    rate_64, rate_4096 = state[slot, at.IN_64] * moments[m, R_64], state[slot, at.IN_S] * moments[m, R_4096]
    out[row, columns[M_IN_RATE_64]] = np.float32(rate_64 if known else NAN)
    out[row, columns[M_IN_RATE]] = np.float32(rate_4096 if known else NAN)
    out[row, columns[M_IN_MEAN]] = np.float32(_share(state[slot, at.IN_S], state[slot, at.IN_N]))
    known = state[slot, at.OUT_N] > 0.0
    rate_64, rate_4096 = state[slot, at.OUT_64] * moments[m, R_64], state[slot, at.OUT_S] * moments[m, R_4096]
    out[row, columns[M_OUT_RATE_64]] = np.float32(rate_64 if known else NAN)
    out[row, columns[M_OUT_RATE]] = np.float32(rate_4096 if known else NAN)
    day = state[slot, at.OUT_65536] * moments[m, R_65536]
    out[row, columns[M_OUT_RATE_DAY]] = np.float32(day if known else NAN)
    models = _distinct(words, slot, at.OWN_SKETCH + at.MODELS, at.OWN_BITMAPS, at.MODELS_WORDS, _COUNT_64)
    out[row, columns[M_MODELS]] = np.float32(models)


@_inlined
def _leave_out(columns, out, row):
    """Write NaN for an entity that the request has not."""
    for column in columns:
        if column >= 0:
            out[row, column] = np.float32(NAN)


@_inlined
def find(tags, first, ways, key):
    """Return the slot of `key` in the set that begins at `first`, or -1."""
    for slot in range(first, first + ways):
        if tags[slot] == key:
            return slot
    return -1


@_compiled
def place(tags, first, ways, key, state, epoch):
    """Return the slot that `key` takes: a free one, else that of the least decayed count (lowest slot on ties).

    The count decays with the longest half-life, so a one-shot key goes before a client that has been coming back.
    """
    victim, least = first, np.inf
    newest = np.int64(epoch) >> 16
    for slot in range(first, first + ways):
        if tags[slot] == ZERO:
            victim = slot
            break
        count = state[slot, at.N_65536]
        older = newest - (np.int64(state[slot, at.EPOCH]) >> 16)
        if older > 0:
            count = count * _SHRINK if older == 1 else 0.0
        if count < least:
            victim, least = slot, count
    tags[victim] = key
    return victim


@_inlined
def begin_profile(state, slot, now, serial, epoch, generation, own):
    """Make the profile one that begins with the arrival `serial` at `now`."""
    for i in range(at.OWN_WIDTH if own else at.GROUP_WIDTH):
        state[slot, i] = 0.0
    state[slot, at.LAST] = now
    state[slot, at.BORN] = now
    state[slot, at.SERIAL] = serial
    state[slot, at.EPOCH] = epoch
    state[slot, at.GENERATION] = generation
    state[slot, at.PREVIOUS] = -1.0
    if own:
        state[slot, at.PREVIOUS_PAGE] = -1.0


@_inlined
def _look_ahead(i, begin, tags, base, mask, ways, key, kind, state, found, own):
    """Find the profile of transition `i`, or the place it may take, and ask for the cache lines that it will need."""
    first = base + np.int64((key >> np.uint64(8)) & mask) * ways
    found[i - begin] = -1
    for slot in range(first, first + ways):
        if tags[slot] == key or tags[slot] == ZERO:
            found[i - begin] = slot
            width = at.OWN_WIDTH if own else at.GROUP_WIDTH
            lines = width // at.LINE
            if kind != at.ARRIVAL:
                lines = at.OWN_COMPLETION_LINES if own else at.GROUP_COMPLETION_LINES
            for line in range(lines):
                prefetch(state, slot * width + line * at.LINE)
            return
    if kind == at.ARRIVAL:  # the set is full: `place` will compare all of it
        for slot in range(first, first + ways):
            prefetch(state, slot * (at.OWN_WIDTH if own else at.GROUP_WIDTH))


@_inlined
def _run(entity, own, shard, shards, begin, end, times, kinds, events, serials, rows, hashes, values, moments, found,
         origin, base, mask, ways, columns, state, words, tags, out):  # fmt: skip
    """Move one shard of the profiles of one entity kind through transitions [begin, end); read a row at each arrival."""
    spare = len(moments) - 1
    for i in range(begin - 2 * AHEAD, end):
        if entity != EVERYONE:
            if i + 2 * AHEAD < end:
                first = base + np.int64((hashes[events[i + 2 * AHEAD], entity] >> np.uint64(8)) & mask) * ways
                for slot in range(first, first + ways, at.LINE):
                    prefetch(tags, slot)
            if begin <= i + AHEAD < end:
                j = i + AHEAD
                _look_ahead(j, begin, tags, base, mask, ways, hashes[events[j], entity], kinds[j], state, found, own)
        if i < begin:
            continue
        event, kind, now, m = events[i], kinds[i], times[i], i - begin
        if entity == EVERYONE:
            key, position, slot = ONE, np.int64(0), base if tags[base] == ONE else -1
        else:
            key = hashes[event, entity]
            if key == ZERO:
                if kind == at.ARRIVAL and rows[event] >= 0 and shard == 0:
                    _leave_out(columns, out, rows[event])
                continue
            position, slot = np.int64((key >> np.uint64(8)) & mask), found[m]
            if slot < 0 or tags[slot] != key:
                slot = find(tags, base + position * ways, ways, key)
        if shards > 1 and position % shards != shard:
            continue
        if slot < 0:
            if kind != at.ARRIVAL:
                continue
            slot = place(tags, base + position * ways, ways, key, state, moments[m, M_EPOCH])
            begin_profile(state, slot, now, serials[event], moments[m, M_EPOCH], moments[m, M_GENERATION], own)
        elif kind != at.ARRIVAL and state[slot, at.SERIAL] > serials[event]:
            continue
        if now < state[slot, at.LAST]:
            now, m = state[slot, at.LAST], spare
            _weigh(moments, m, now, True, origin)
        _bring_to(state, words, slot, now, moments, m, own)
        if kind == at.ARRIVAL:
            gap = _gap(now, state[slot, at.PREVIOUS]) if columns[M_GAP_STD] >= 0 else NAN
            if own:
                _arrive_own(state, words, slot, now, moments, m, hashes, values, event, gap)
            else:
                _mark_group(words, slot, hashes, event, columns)
            _arrive(state, slot, now, moments, m, values, event, gap)
            row = rows[event]
            if row >= 0:
                _read(state, words, slot, moments, m, columns, own, out, row)
                if own:
                    _read_own(state, words, slot, moments, m, gap, columns, out, row)
        elif kind == at.COMPLETION:
            _complete(state, slot, moments, m, values, event, own)
        else:
            state[slot, at.IN_FLIGHT] -= 1.0


@_compiled
def run(kinds_of, shard, shards, start, times, kinds, events, serials, rows, hashes, values,
        places, columns, own, own_tags, group, group_tags, above, below, first_ratio, moments, found, origin, out):  # fmt: skip
    """Move one shard of the profiles of the entity kinds `kinds_of` int64[] through transitions; read a row at each arrival.

    times float64[m] (µs), kinds uint8[m], events int64[m] (row of the event arrays); serials int64[n], rows int64[n] (row
    of `out`, -1: none wanted), hashes uint64[n, HASHES], values float64[n, VALUES]; `start` (µs) is the engine's first
    moment. places int64[6, 3] holds first slot, mask and ways of each entity kind in its table: `own`
    float64[slots, OWN_WIDTH] and `own_tags` uint64[slots] for clients, `group` and `group_tags` for the others. A key's
    set is `(key >> 8) & mask`, and shard s of S owns the sets that leave s when divided by S. columns int64[6, measures].

    It goes in blocks whose event rows stay in the cache from one entity kind to the next. Profiles are chosen and moved
    by the history of their own set alone, so any order that keeps that of each set gives the same profiles and
    rows: the blocks and the shards change nothing. One shard alone also fills the columns of `finish`.
    """
    own_words, group_words = own.view(np.uint64), group.view(np.uint64)
    _begin(origin, start)
    for begin in range(0, len(times), BLOCK):
        end = min(begin + BLOCK, len(times))
        for i in range(begin, end):
            _weigh(moments, i - begin, times[i], kinds[i] == at.ARRIVAL, origin)
        for entity in kinds_of:
            base, mask, ways = places[entity, 0], np.uint64(places[entity, 1]), places[entity, 2]
            if entity == 0:
                _run(entity, True, shard, shards, begin, end, times, kinds, events, serials, rows, hashes, values, moments,
                     found, origin, base, mask, ways, columns[entity], own, own_words, own_tags, out)  # fmt: skip
            else:
                _run(entity, False, shard, shards, begin, end, times, kinds, events, serials, rows, hashes, values, moments,
                     found, origin, base, mask, ways, columns[entity], group, group_words, group_tags, out)  # fmt: skip
        if shards == 1:
            finish(begin, end, kinds, events, values, rows, above, below, first_ratio, out)


@_compiled
def merge(record, theirs, own):
    """Add another profile of the same key, `theirs`, to this one, both brought to the later of their newest transitions.

    Each is float64[1, width] (`Engine.profile`). Sums, the requests in flight and the totals add; bitmaps unite; the
    profile is as old as the older of the two. The result equals the profile of the united stream to about 1e-9 relative,
    except for the times between requests, which each side has taken between its own arrivals.
    """
    words, their_words = record.view(np.uint64), theirs.view(np.uint64)
    epoch = max(record[0, at.EPOCH], theirs[0, at.EPOCH])
    generation = max(record[0, at.GENERATION], theirs[0, at.GENERATION])
    for state, sketch in ((record, words), (theirs, their_words)):
        if state[0, at.EPOCH] != epoch:
            rebase(state, 0, epoch, own)
        if state[0, at.GENERATION] != generation:
            rotate(state, sketch, 0, generation, own)
    newer = theirs[0, at.PREVIOUS] > record[0, at.PREVIOUS]
    for i in range(at.N_65536, at.N_1 + 2 if own else at.SHARED_END):
        if i != at.BORN and i != at.PREVIOUS:
            record[0, i] += theirs[0, i]
    record[0, at.LAST] = max(record[0, at.LAST], theirs[0, at.LAST])
    record[0, at.BORN] = min(record[0, at.BORN], theirs[0, at.BORN])
    record[0, at.SERIAL] = min(record[0, at.SERIAL], theirs[0, at.SERIAL])
    record[0, at.PREVIOUS] = max(record[0, at.PREVIOUS], theirs[0, at.PREVIOUS])
    begin = at.OWN_SKETCH if own else at.GROUP_SKETCH
    for i in range(begin, begin + 2 * (at.OWN_BITMAPS if own else at.GROUP_BITMAPS)):
        words[0, i] |= their_words[0, i]
    if own:
        record[0, at.PREVIOUS_PAGE] = max(record[0, at.PREVIOUS_PAGE], theirs[0, at.PREVIOUS_PAGE])
        if newer:
            words[0, at.NEWEST_PATH] = their_words[0, at.NEWEST_PATH]


@_compiled
def count_in_flight(hashes, serials, places, own, own_tags, group, group_tags):
    """Set the requests in flight of every profile to those whose arrivals are given: uint64[n, HASHES] and int64[n].

    For state that was copied while it moved: see `serving.snapshot`.
    """
    own[:, at.IN_FLIGHT] = 0.0
    group[:, at.IN_FLIGHT] = 0.0
    for i in range(len(serials)):
        for entity in range(len(places)):
            key = hashes[i, entity] if entity != EVERYONE else ONE
            state, tags = (own, own_tags) if entity == 0 else (group, group_tags)
            first = (
                places[entity, 0] + np.int64((key >> np.uint64(8)) & np.uint64(places[entity, 1])) * places[entity, 2]
            )
            slot = find(tags, first, places[entity, 2], key) if key != ZERO else -1
            if slot >= 0 and state[slot, at.SERIAL] <= serials[i]:
                state[slot, at.IN_FLIGHT] += 1.0


_REQUEST_VALUES = np.array([
    at.V_POST, at.V_DEPTH, at.V_LENGTH, at.V_QUERY, at.V_ASSET, at.V_PROBE, at.V_REFERER, at.V_AGENT, at.V_REQUEST,
    at.V_CAP, at.V_AGE, at.V_PROMPT,
])  # fmt: skip
assert len(_REQUEST_VALUES) == len(REQUEST), "each property of a request has its value"


@_compiled
def finish(begin, end, kinds, events, values, rows, above, below, first_ratio, out):
    """Fill the columns of the request itself and the ratios of columns of the same row, float32 by float32."""
    for i in range(begin, end):
        if kinds[i] != at.ARRIVAL:
            continue
        event = events[i]
        row = rows[event]
        if row < 0:
            continue
        for j in range(len(_REQUEST_VALUES)):
            out[row, j] = np.float32(values[event, _REQUEST_VALUES[j]])
        if out[row, 0] < 0.0:
            out[row, 0] = np.float32(0.0)
        for j in range(len(above)):
            out[row, first_ratio + j] = out[row, above[j]] / out[row, below[j]]
