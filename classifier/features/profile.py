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

from classifier.features import agents
from classifier.features import layout as at
from classifier.features.numerics import adder, count_bits, exp2_of_part, log2_positive, power_of_2, prefetch, scaler
from classifier.features.spec import COLUMN, ENTITIES, GENERATION_S, HALF_LIVES_S, MEASURE_INDEX, MEASURES, REQUEST

_compiled = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
"""No reference counts in the kernel: it allocates nothing, and counting would take as long as the work."""
_inlined = njit(cache=True, nogil=True, error_model="numpy", forceinline=True, _nrt=False)
_add_ages, _add_traits, _add_answers, _add_own_answers = (
    adder(*run) for run in (at.AGES, at.TRAITS, at.ANSWERS, at.OWN_ANSWERS)
)
_add_squared_traits, _add_squared_answers = (
    adder(*run, squared=True) for run in (at.SQUARED_TRAITS, at.SQUARED_ANSWERS)
)
_OWN_COLUMNS = tuple(COLUMN.get(f"client_{measure.name}", -1) for measure in MEASURES)
"""The column of each measure of a client; a tuple, so that the compiler knows them."""
_write_habits = scaler(at.REPEATS, COLUMN["client_repeat_share"], at.DECLARED_BOTS - at.REPEATS + 1)
_write_page_gaps = scaler(at.PAGE_1, COLUMN["client_page_gap_under_1s"], 3)
_write_errors = scaler(at.LIMITED, COLUMN["client_limited_share_4096s"], 3)
NAN = math.nan
ONE = np.uint64(1)
ZERO = np.uint64(0)
BLOCK = 256
"""Transitions after which the next entity kind has its turn: their event rows fit a core's cache."""
AHEAD = 5
"""Transitions between asking for a profile's cache lines and using them."""
EVERYONE = ENTITIES.index("everyone")

EPOCH_LIVES = 512
"""Half-lives between two landmarks: weights stay below 2^512, and a sum of one epoch is 2^-512 of itself in the next."""
"""Epochs are counted in those of the shortest half-life; the longer ones begin at every 8th, 64th … of them."""
_SHIFTS = np.array([h.bit_length() - 1 for h in HALF_LIVES_S])
assert all(1 << s == h for s, h in zip(_SHIFTS.tolist(), HALF_LIVES_S, strict=True)), "half-lives are powers of two"
_SHIFTS_OF_EPOCHS = _SHIFTS + (EPOCH_LIVES.bit_length() - 1)
_LAST_LIFE = EPOCH_LIVES - 1
assert HALF_LIVES_S == (1, 8, 64, 512, 4096, 65536), "`_weigh` has these"
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
M_IN_FLIGHT = MEASURE_INDEX["in_flight"]
M_SEEN = MEASURE_INDEX["requests_seen"]
M_AGE = MEASURE_INDEX["age"]
M_POST = MEASURE_INDEX["post_share"]
M_REFERER = MEASURE_INDEX["referer_share"]
M_DEPTH_MEAN = MEASURE_INDEX["depth_mean"]
M_DEPTH_STD = MEASURE_INDEX["depth_std"]
M_LENGTH_MEAN = MEASURE_INDEX["length_mean"]
M_LENGTH_STD = MEASURE_INDEX["length_std"]
M_REQUEST_MEAN = MEASURE_INDEX["request_size_mean"]
M_REQUEST_STD = MEASURE_INDEX["request_size_std"]
M_RESPONSE_MEAN = MEASURE_INDEX["response_size_mean"]
M_RESPONSE_STD = MEASURE_INDEX["response_size_std"]
M_DURATION_MEAN = MEASURE_INDEX["duration_mean"]
M_DURATION_STD = MEASURE_INDEX["duration_std"]
M_CAP_MEAN = MEASURE_INDEX["cap_mean"]
M_PROMPT_MEAN = MEASURE_INDEX["prompt_length_mean"]
M_PROMPT_STD = MEASURE_INDEX["prompt_length_std"]
M_PROMPT_SCORE = MEASURE_INDEX["prompt_score_mean"]
M_PROMPT_ALARM = MEASURE_INDEX["prompt_alarm_share"]
M_ACCOUNT_AGE = MEASURE_INDEX["account_age_mean"]
M_AUTH_64 = MEASURE_INDEX["auth_error_share_64s"]
M_AUTH = MEASURE_INDEX["auth_error_share_4096s"]
M_MISSING = MEASURE_INDEX["not_found_share_4096s"]
M_LIMITED_64 = MEASURE_INDEX["limited_share_64s"]
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
M_FINGERPRINTS_EACH = MEASURE_INDEX["fingerprints_per_client"]
M_ADDRESSES_EACH = MEASURE_INDEX["addresses_per_client"]
M_CREDENTIALS_EACH = MEASURE_INDEX["credentials_per_client"]


@_inlined
def _part(whole, seconds, shift):
    """Return 2^part of the half-lives of 2^shift seconds that have passed at `whole` µs: in [1, 2)."""
    length = np.int64(1_000_000) << shift
    return exp2_of_part((whole - (seconds >> shift) * length) * (1.0 / length))


@_inlined
def _weight(part, lives):
    """Return 2^(lives since the landmark) times 2^part."""
    return part * power_of_2(lives & _LAST_LIFE)


@_inlined
def _shorter(part, lives, bits):
    """Return the 2^part of a half-life that is shorter by 2^bits, 3 or 4, and of which `lives` have passed."""
    square = part * part
    fourth = square * square
    eighth = fourth * fourth
    return (eighth * eighth if bits == 4 else eighth) * power_of_2(-(lives & ((1 << bits) - 1)))


@_inlined
def _weigh(moment, time):
    """Fill the epoch, the generation and the weights of the moment `time` (µs).

    A weight is 2^(whole + part) of the half-lives since its landmark. 2^part is computed for every other half-life; squared
    three or four times it is that of the next shorter one, with a relative error of 16 times that of the first.
    """
    whole = np.int64(time)
    seconds = whole // 1_000_000
    moment[M_EPOCH] = seconds >> _SHIFTS_OF_EPOCHS[0]
    moment[M_GENERATION] = seconds // GENERATION_S
    part = _part(whole, seconds, 16)
    moment[W_65536] = _weight(part, seconds >> 16)
    moment[W_4096] = _weight(_shorter(part, seconds >> 12, 4), seconds >> 12)
    part = _part(whole, seconds, 9)
    moment[W_512] = _weight(part, seconds >> 9)
    moment[W_64] = _weight(_shorter(part, seconds >> 6, 3), seconds >> 6)
    part = _part(whole, seconds, 3)
    moment[W_8] = _weight(part, seconds >> 3)
    moment[W_1] = _weight(_shorter(part, seconds, 3), seconds)


@_inlined
def _weigh_rates(moment, origin):
    """Fill what turns decayed counts into rates at a moment whose weights are there."""
    seconds_of_epoch = np.int64(moment[M_EPOCH])
    for j in range(6):
        since = (seconds_of_epoch >> _SHIFTS[j]) - origin[j, 0]
        begun = origin[j, 1] * (1.0 if since == 0.0 else _SHRINK if since == 1.0 else 0.0)
        lived = moment[j] - begun if since >= 0.0 else 0.0
        moment[R_1 + j] = max(lived, moment[j] * _FIRST_SECOND[j])
    for j in range(6):
        moment[R_1 + j] = _PER_S[j] / moment[R_1 + j]


@_inlined
def _begin(origin, start, moment):
    """Fill epoch and weight of the engine's first moment (µs) per half-life, float64[6, 2]; `moment` is room to work in.

    An engine that has just started has not seen a whole half-life: its rates divide by the weight that it has lived, at
    least a second of it.
    """
    _weigh(moment, start)
    for j in range(6):
        origin[j, 0] = np.int64(moment[M_EPOCH]) >> _SHIFTS[j]
        origin[j, 1] = moment[j]


@_inlined
def _shrink(record, begin, end, epochs):
    for i in range(begin, end):
        value = record[i] * _SHRINK
        record[i] = value if epochs == 1 and abs(value) >= _GONE else 0.0


@_compiled
def rebase(record, epoch, own):
    """Write the sums of a profile in a later epoch (float64, counted in the shortest half-life's)."""
    old, new = np.int64(record[at.EPOCH]), np.int64(epoch)
    record[at.EPOCH] = epoch
    if own:
        _shrink(record, at.N_1, at.N_1 + 1, new - old)
    if new >> 3 != old >> 3:
        _shrink(record, at.N_8, at.N_8 + 1, (new >> 3) - (old >> 3))
    if new >> 6 != old >> 6:
        epochs = (new >> 6) - (old >> 6)
        _shrink(record, at.N_64, at.N_64 + 1, epochs)
        if own:
            _shrink(record, at.DONE_64, at.GAP_Q_64 + 1, epochs)
    if own and new >> 9 != old >> 9:
        _shrink(record, at.N_512, at.N_512 + 1, (new >> 9) - (old >> 9))
    if new >> 12 != old >> 12:
        epochs = (new >> 12) - (old >> 12)
        _shrink(record, at.DONE, at.N + 1, epochs)
        _shrink(record, at.GAP_N, at.REFERERS + 1, epochs)
        if own:
            _shrink(record, at.LIMITED, at.LONG_END, epochs)
    if new >> 16 != old >> 16:
        epochs = (new >> 16) - (old >> 16)
        _shrink(record, at.N_65536, at.N_65536 + 1, epochs)
        if own:
            _shrink(record, at.OUT_65536, at.OUT_65536 + 1, epochs)


@_compiled
def rotate(record, words, generation, own):
    """Turn the sketches of a profile to a later generation."""
    begin = at.OWN_SKETCH if own else at.GROUP_SKETCH
    size = at.OWN_BITMAPS if own else at.GROUP_BITMAPS
    next_one = generation == record[at.GENERATION] + 1.0
    for i in range(begin, begin + size):
        words[size + i] = words[i] if next_one else ZERO
        words[i] = ZERO
    record[at.GENERATION] = generation


@_inlined
def _bring_to(record, words, now, moment, own):
    """Make `now`, not before the profile's newest transition, its newest."""
    record[at.LAST] = now
    if moment[M_EPOCH] != record[at.EPOCH]:
        rebase(record, moment[M_EPOCH], own)
    if moment[M_GENERATION] != record[at.GENERATION]:
        rotate(record, words, moment[M_GENERATION], own)


@_inlined
def _mark(words, begin, size, length, key):
    """Set the key's bit in a bitmap of `length` words, unless the key is absent; `size` words are a generation.

    Return 1.0 if it was set already in either generation, else 0.0.
    """
    bit = (key >> np.uint64(32)) & np.uint64(64 * length - 1)
    word = begin + np.int64(bit >> np.uint64(6))
    mask = (ONE if key != ZERO else ZERO) << (bit & np.uint64(63))
    seen = ((words[word] | words[size + word]) & mask) != ZERO
    words[word] |= mask
    return 1.0 if seen else 0.0


@_inlined
def _gap(now, previous):
    """Return log2 of the seconds between, at least 1 ms; NaN before the first (-1)."""
    return log2_positive(max((now - previous) * 1e-6, 1e-3)) if previous >= 0.0 else NAN


@_inlined
def _is(truth):
    return 1.0 if truth else 0.0


@_inlined
def _arrive(record, now, moment, values, gap):
    """Record an arrival in the sums that every profile has."""
    w = moment[W_4096]
    record[at.N_8] += moment[W_8]
    record[at.N_64] += moment[W_64]
    record[at.N] += w
    record[at.N_65536] += moment[W_65536]
    record[at.TOTAL] += 1.0
    record[at.IN_FLIGHT] += 1.0
    if gap == gap:
        record[at.GAP_N] += w
        record[at.GAP_S] += w * gap
        record[at.GAP_Q] += w * (gap * gap)
    record[at.PREVIOUS] = now
    _add_ages(record, values, w)


@_inlined
def _arrive_own(record, words, now, moment, hashes, values, gap):
    """Record an arrival in the sums and sketches that only clients have."""
    w, short = moment[W_4096], moment[W_64]
    record[at.N_1] += moment[W_1]
    record[at.N_512] += moment[W_512]
    if gap == gap:
        record[at.GAP_N_64] += short
        record[at.GAP_S_64] += short * gap
        record[at.GAP_Q_64] += short * (gap * gap)
    begin, size = at.OWN_SKETCH, at.OWN_BITMAPS
    _mark(words, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, hashes[at.H_ADDRESS])
    _mark(words, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, hashes[at.H_FINGERPRINT])
    _mark(words, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, hashes[at.H_TEMPLATE])
    _mark(words, begin + at.MODELS, size, at.MODELS_WORDS, hashes[at.H_MODEL])
    _mark(words, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, hashes[at.H_CREDENTIAL])
    path = hashes[at.H_PATH]
    record[at.REVISITS] += w * _mark(words, begin + at.PATHS, size, at.PATHS_WORDS, path)
    record[at.REPEATS] += w * _is(words[at.NEWEST_PATH] == path)
    words[at.NEWEST_PATH] = path
    _add_traits(record, values, w)
    _add_squared_traits(record, values, w)
    if values[at.V_ASSET] == 1.0:
        return
    previous = record[at.PREVIOUS_PAGE]
    if previous >= 0.0:
        page_gap = gap if previous == record[at.PREVIOUS] else _gap(now, previous)
        elapsed = now - previous
        record[at.PAGE_N] += w
        record[at.PAGE_S] += w * page_gap
        record[at.PAGE_Q] += w * (page_gap * page_gap)
        record[at.PAGE_1] += w * _is(elapsed < 1e6)
        record[at.PAGE_8] += w * _is(1e6 <= elapsed < 8e6)
        record[at.PAGE_64] += w * _is(8e6 <= elapsed < 64e6)
    record[at.PREVIOUS_PAGE] = now


@_inlined
def _mark_group(words, hashes, columns):
    """Mark the sketches that are read of this kind of group."""
    begin, size = at.GROUP_SKETCH, at.GROUP_BITMAPS
    each = columns[M_ADDRESSES_EACH] >= 0  # with it, the other two per client
    if each or columns[M_CLIENTS] >= 0:
        _mark(words, begin + at.CLIENTS, size, at.CLIENTS_WORDS, hashes[at.H_CLIENT])
    if each or columns[M_ADDRESSES] >= 0:
        _mark(words, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, hashes[at.H_ADDRESS])
    if each or columns[M_FINGERPRINTS] >= 0:
        _mark(words, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, hashes[at.H_FINGERPRINT])
    if columns[M_TEMPLATES] >= 0:
        _mark(words, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, hashes[at.H_TEMPLATE])
    if each or columns[M_CREDENTIALS] >= 0:
        _mark(words, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, hashes[at.H_CREDENTIAL])
    if columns[M_PATHS] >= 0:
        _mark(words, begin + at.PATHS, size, at.PATHS_WORDS, hashes[at.H_PATH])


@_inlined
def _complete(record, moment, values, own):
    """Record a completion. One that botsieve refused ends the request in flight and adds nothing else."""
    record[at.IN_FLIGHT] -= 1.0
    if values[at.V_REFUSED] == 1.0:
        return
    w = moment[W_4096]
    _add_answers(record, values, w)
    if not own:
        return
    short = moment[W_64]
    _add_own_answers(record, values, w)
    _add_squared_answers(record, values, w)
    record[at.DONE_64] += short * values[at.V_DONE]
    record[at.AUTH_64] += short * values[at.V_AUTH]
    record[at.LIMITED_64] += short * values[at.V_LIMITED]
    record[at.IN_64] += short * values[at.V_IN]
    record[at.OUT_64] += short * values[at.V_OUT]
    record[at.OUT_65536] += moment[W_65536] * values[at.V_OUT]


@_inlined
def _share(part, whole):
    return part / whole if whole > 0.0 else NAN


@_inlined
def _put(out, column, value):
    if column >= 0:
        out[column] = np.float32(value)


@_inlined
def _spread(mean, squares, per):
    """Return the deviation from the mean, the sum of squares and 1 over the count; NaN stays NaN."""
    variance = squares * per - mean * mean
    return math.sqrt(0.0 if variance < 0.0 else variance)


@_inlined
def _put_spread(out, mean_column, std_column, record, count, total, squares):
    """Write mean and deviation from the places of the count, the sum and the sum of squares."""
    per = _share(1.0, record[count])
    mean = record[total] * per
    out[mean_column] = np.float32(mean)
    out[std_column] = np.float32(_spread(mean, record[squares], per))


@_inlined
def _distinct(words, begin, size, length, table):
    ones = 0
    for i in range(begin, begin + length):
        ones += count_bits(words[i] | words[size + i])
    return table[ones]


@_inlined
def _read(record, words, moment, columns, own, out):
    """Write the measures that clients and groups have, at a profile's newest transition, an arrival.

    `columns` int64[measures]: the column of each measure in `out`, -1 where it is no feature of this entity.
    """
    begin = at.OWN_SKETCH if own else at.GROUP_SKETCH
    size = at.OWN_BITMAPS if own else at.GROUP_BITMAPS
    rate_64, rate_4096 = record[at.N_64] * moment[R_64], record[at.N] * moment[R_4096]
    _put(out, columns[M_RATE_8], record[at.N_8] * moment[R_8])
    _put(out, columns[M_RATE_64], rate_64)
    _put(out, columns[M_RATE_4096], rate_4096)
    _put(out, columns[M_BURST_LONG], rate_64 / rate_4096)
    if columns[M_GAP_STD] >= 0:
        per = _share(1.0, record[at.GAP_N])
        mean = record[at.GAP_S] * per
        _put(out, columns[M_GAP_MEAN], mean)
        out[columns[M_GAP_STD]] = np.float32(_spread(mean, record[at.GAP_Q], per))
    _put(out, columns[M_IN_FLIGHT], record[at.IN_FLIGHT])
    _put(out, columns[M_SEEN], record[at.TOTAL])
    _put(out, columns[M_AGE], (record[at.LAST] - record[at.BORN]) * 1e-6)
    per_request = 1.0 / record[at.N]
    _put(out, columns[M_POST], record[at.POSTS] * per_request)
    _put(out, columns[M_REFERER], record[at.REFERERS] * per_request)
    _put(out, columns[M_ACCOUNT_AGE], _share(record[at.AGE_S], record[at.AGE_N]))
    per_answer = _share(1.0, record[at.DONE])
    _put(out, columns[M_AUTH], record[at.AUTH] * per_answer)
    _put(out, columns[M_MISSING], record[at.MISSING] * per_answer)
    if columns[M_OUT_MEAN] >= 0:
        out[columns[M_OUT_MEAN]] = np.float32(_share(record[at.OUT_S], record[at.OUT_N]))
    if columns[M_PATHS] >= 0:
        count = _distinct(words, begin + at.PATHS, size, at.PATHS_WORDS, _COUNT_128)
        out[columns[M_PATHS]] = np.float32(count)
    if columns[M_FINGERPRINTS] >= 0:
        count = _distinct(words, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, _COUNT_64)
        out[columns[M_FINGERPRINTS]] = np.float32(count)
    if columns[M_ADDRESSES] >= 0:
        count = _distinct(words, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, _COUNT_256)
        out[columns[M_ADDRESSES]] = np.float32(count)
    if columns[M_CREDENTIALS] >= 0:
        count = _distinct(words, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, _COUNT_64)
        out[columns[M_CREDENTIALS]] = np.float32(count)
    if columns[M_TEMPLATES] >= 0:
        count = _distinct(words, begin + at.TEMPLATES, size, at.TEMPLATES_WORDS, _COUNT_128)
        out[columns[M_TEMPLATES]] = np.float32(count)
    if own:
        return
    if columns[M_CLIENTS] >= 0:
        count = _distinct(words, begin + at.CLIENTS, size, at.CLIENTS_WORDS, _COUNT_256)
        out[columns[M_CLIENTS]] = np.float32(count)
    if columns[M_ADDRESSES_EACH] >= 0:
        each = 1.0 / _distinct(words, begin + at.CLIENTS, size, at.CLIENTS_WORDS, _COUNT_256)  # this one is marked
        count = _distinct(words, begin + at.FINGERPRINTS, size, at.FINGERPRINTS_WORDS, _COUNT_64)
        out[columns[M_FINGERPRINTS_EACH]] = np.float32(count * each)
        count = _distinct(words, begin + at.ADDRESSES, size, at.ADDRESSES_WORDS, _COUNT_256)
        out[columns[M_ADDRESSES_EACH]] = np.float32(count * each)
        count = _distinct(words, begin + at.CREDENTIALS, size, at.CREDENTIALS_WORDS, _COUNT_64)
        out[columns[M_CREDENTIALS_EACH]] = np.float32(count * each)


@_inlined
def _read_own(record, words, moment, gap, columns, out):
    """Write the measures that only clients have; all of them are features."""
    rate_1 = record[at.N_1] * moment[R_1]
    out[columns[M_RATE_1]] = np.float32(rate_1)
    out[columns[M_RATE_512]] = np.float32(record[at.N_512] * moment[R_512])
    out[columns[M_RATE_65536]] = np.float32(record[at.N_65536] * moment[R_65536])
    out[columns[M_BURST_SHORT]] = np.float32(rate_1 / (record[at.N_64] * moment[R_64]))
    out[columns[M_GAP]] = np.float32(gap)
    _put_spread(out, columns[M_GAP_MEAN_64], columns[M_GAP_STD_64], record, at.GAP_N_64, at.GAP_S_64, at.GAP_Q_64)
    per_request = 1.0 / record[at.N]
    _write_habits(record, per_request, out)
    mean = record[at.DEPTH_S] * per_request
    out[columns[M_DEPTH_MEAN]] = np.float32(mean)
    out[columns[M_DEPTH_STD]] = np.float32(_spread(mean, record[at.DEPTH_Q], per_request))
    mean = record[at.LENGTH_S] * per_request
    out[columns[M_LENGTH_MEAN]] = np.float32(mean)
    out[columns[M_LENGTH_STD]] = np.float32(_spread(mean, record[at.LENGTH_Q], per_request))
    _put_spread(out, columns[M_REQUEST_MEAN], columns[M_REQUEST_STD], record, at.REQUEST_N, at.REQUEST_S, at.REQUEST_Q)
    _put_spread(
        out, columns[M_RESPONSE_MEAN], columns[M_RESPONSE_STD], record, at.RESPONSE_N, at.RESPONSE_S, at.RESPONSE_Q
    )
    _put_spread(
        out, columns[M_DURATION_MEAN], columns[M_DURATION_STD], record, at.DURATION_N, at.DURATION_S, at.DURATION_Q
    )
    _put_spread(out, columns[M_PROMPT_MEAN], columns[M_PROMPT_STD], record, at.PROMPT_N, at.PROMPT_S, at.PROMPT_Q)
    _put_spread(out, columns[M_PAGE_MEAN], columns[M_PAGE_STD], record, at.PAGE_N, at.PAGE_S, at.PAGE_Q)
    per_prompt = _share(1.0, record[at.PROMPT_N])
    out[columns[M_PROMPT_SCORE]] = np.float32(record[at.PROMPT_SCORES] * per_prompt)
    out[columns[M_PROMPT_ALARM]] = np.float32(record[at.PROMPT_ALARMS] * per_prompt)
    per_page = _share(1.0, record[at.PAGE_N])
    _write_page_gaps(record, per_page, out)
    out[columns[M_CAP_MEAN]] = np.float32(_share(record[at.CAP_S], record[at.CAP_N]))
    out[columns[M_USED]] = np.float32(_share(record[at.USED], record[at.ASKED]))
    per_answer, per_answer_64 = _share(1.0, record[at.DONE]), _share(1.0, record[at.DONE_64])
    out[columns[M_AUTH_64]] = np.float32(record[at.AUTH_64] * per_answer_64)
    out[columns[M_LIMITED_64]] = np.float32(record[at.LIMITED_64] * per_answer_64)
    _write_errors(record, per_answer, out)
    known = record[at.IN_N] > 0.0
    rate_64, rate_4096 = record[at.IN_64] * moment[R_64], record[at.IN_S] * moment[R_4096]
    out[columns[M_IN_RATE_64]] = np.float32(rate_64 if known else NAN)
    out[columns[M_IN_RATE]] = np.float32(rate_4096 if known else NAN)
    out[columns[M_IN_MEAN]] = np.float32(_share(record[at.IN_S], record[at.IN_N]))
    known = record[at.OUT_N] > 0.0
    rate_64, rate_4096 = record[at.OUT_64] * moment[R_64], record[at.OUT_S] * moment[R_4096]
    out[columns[M_OUT_RATE_64]] = np.float32(rate_64 if known else NAN)
    out[columns[M_OUT_RATE]] = np.float32(rate_4096 if known else NAN)
    day = record[at.OUT_65536] * moment[R_65536]
    out[columns[M_OUT_RATE_DAY]] = np.float32(day if known else NAN)
    models = _distinct(words, at.OWN_SKETCH + at.MODELS, at.OWN_BITMAPS, at.MODELS_WORDS, _COUNT_64)
    out[columns[M_MODELS]] = np.float32(models)


@_inlined
def _leave_out(columns, out):
    """Write NaN for an entity that the request has not."""
    for column in columns:
        if column >= 0:
            out[column] = np.float32(NAN)


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
    victim = find(tags, first, ways, ZERO)
    if victim < 0:  # only now are counts read: that is a trip to memory for each
        victim, least = first, np.inf
        newest = np.int64(epoch) >> 16
        for slot in range(first, first + ways):
            count = state[slot, at.N_65536]
            older = newest - (np.int64(state[slot, at.EPOCH]) >> 16)
            if older > 0:
                count = count * _SHRINK if older == 1 else 0.0
            if count < least:
                victim, least = slot, count
    tags[victim] = key
    return victim


@_inlined
def begin_profile(record, now, serial, epoch, generation, own):
    """Make the profile one that begins with the arrival `serial` at `now`."""
    for i in range(at.OWN_WIDTH if own else at.GROUP_WIDTH):
        record[i] = 0.0
    record[at.LAST] = now
    record[at.BORN] = now
    record[at.SERIAL] = serial
    record[at.EPOCH] = epoch
    record[at.GENERATION] = generation
    record[at.PREVIOUS] = -1.0
    if own:
        record[at.PREVIOUS_PAGE] = -1.0


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
                    _leave_out(columns, out[rows[event]])
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
            begin_profile(state[slot], now, serials[event], moments[m, M_EPOCH], moments[m, M_GENERATION], own)
        record, sketch = state[slot], words[slot]
        if kind != at.ARRIVAL and record[at.SERIAL] > serials[event]:
            continue
        if now < record[at.LAST]:
            now, m = record[at.LAST], spare
            _weigh(moments[m], now)
            _weigh_rates(moments[m], origin)
        moment, value = moments[m], values[event]
        _bring_to(record, sketch, now, moment, own)
        if kind == at.ARRIVAL:
            gap = _gap(now, record[at.PREVIOUS]) if columns[M_GAP_STD] >= 0 else NAN
            if own:
                _arrive_own(record, sketch, now, moment, hashes[event], value, gap)
            else:
                _mark_group(sketch, hashes[event], columns)
            _arrive(record, now, moment, value, gap)
            row = rows[event]
            if row >= 0:
                _read(record, sketch, moment, columns, own, out[row])
                if own:
                    _read_own(record, sketch, moment, gap, columns, out[row])
        elif kind == at.COMPLETION:
            _complete(record, moment, value, own)
        else:
            record[at.IN_FLIGHT] -= 1.0


@_compiled
def run(kinds_of, shard, shards, start, times, kinds, events, serials, rows, hashes, values,
        places, columns, own, own_tags, group, group_tags, ratios, moments, found, origin, out):  # fmt: skip
    """Move one shard of the profiles of the entity kinds `kinds_of` int64[] through transitions; read a row at each arrival.

    times float64[m] (µs), kinds uint8[m], events int64[m] (row of the event arrays); serials int64[n], rows int64[n] (row
    of `out`, -1: none wanted), hashes uint64[n, HASHES], values float32[n, VALUES]; `start` (µs) is the engine's first
    moment. places int64[6, 3] holds first slot, mask and ways of each entity kind in its table: `own`
    float64[slots, OWN_WIDTH] and `own_tags` uint64[slots] for clients, `group` and `group_tags` for the others. A key's
    set is `(key >> 8) & mask`, and shard s of S owns the sets that leave s when divided by S. columns int64[6, measures].

    It goes in blocks whose event rows stay in the cache from one entity kind to the next. Profiles are chosen and moved
    by the history of their own set alone, so any order that keeps that of each set gives the same profiles and
    rows: the blocks and the shards change nothing. One shard alone also fills the columns of `finish`.
    """
    own_words, group_words = own.view(np.uint64), group.view(np.uint64)
    _begin(origin, start, moments[0])
    for begin in range(0, len(times), BLOCK):
        end = min(begin + BLOCK, len(times))
        for i in range(begin, end):
            event = events[i]
            prefetch(serials, event)
            prefetch(hashes, event * at.HASHES)
            prefetch(values, event * at.VALUES)
            prefetch(values, event * at.VALUES + 2 * at.LINE)
            prefetch(values, event * at.VALUES + at.VALUES - 1)
            moment = moments[i - begin]
            _weigh(moment, times[i])
            if kinds[i] == at.ARRIVAL:
                _weigh_rates(moment, origin)
        for entity in kinds_of:
            base, mask, ways = places[entity, 0], np.uint64(places[entity, 1]), places[entity, 2]
            if entity == 0:
                _run(entity, True, shard, shards, begin, end, times, kinds, events, serials, rows, hashes, values, moments,
                     found, origin, base, mask, ways, _OWN_COLUMNS, own, own_words, own_tags, out)  # fmt: skip
            else:
                _run(entity, False, shard, shards, begin, end, times, kinds, events, serials, rows, hashes, values, moments,
                     found, origin, base, mask, ways, columns[entity], group, group_words, group_tags, out)  # fmt: skip
        if shards == 1:
            finish(begin, end, kinds, events, values, rows, ratios, out)


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
            rebase(state[0], epoch, own)
        if state[0, at.GENERATION] != generation:
            rotate(state[0], sketch[0], generation, own)
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


@_inlined
def _or_missing(count, value):
    return value if count > 0.0 else np.float32(NAN)


@_inlined
def _describe(values, out):
    """Fill the columns of the request itself, in the order of `spec.REQUEST`."""
    out[0] = values[at.V_POST]
    out[1] = values[at.V_DEPTH]
    out[2] = values[at.V_LENGTH]
    out[3] = values[at.V_QUERY]
    out[4] = values[at.V_ASSET]
    out[5] = values[at.V_PROBE]
    out[6] = values[at.V_REFERER]
    browser, sdk, declared = values[at.V_BROWSER], values[at.V_SDK], values[at.V_DECLARED_BOT]
    other = np.float32(1.0) - (values[at.V_NO_AGENT] + browser + sdk + declared)
    out[7] = (
        browser * agents.BROWSER + sdk * agents.CLIENT_LIBRARY + declared * agents.DECLARED_BOT + other * agents.OTHER
    )
    out[8] = _or_missing(values[at.V_REQUEST_N], values[at.V_REQUEST])
    out[9] = _or_missing(values[at.V_CAP_N], values[at.V_CAP])
    out[10] = _or_missing(values[at.V_AGE_N], values[at.V_AGE])
    out[11] = _or_missing(values[at.V_PROMPT_N], values[at.V_PROMPT])


assert [measure.name for measure in REQUEST] == [
    "is_post", "path_depth", "path_length", "has_query", "is_asset", "is_probe", "has_referer", "agent_class",
    "request_size", "cap", "account_age", "prompt_length",
]  # fmt: skip


@_compiled
def finish(begin, end, kinds, events, values, rows, ratios, out):
    """Fill the columns of the request itself and the ratios of columns of the same row, float32 by float32."""
    for i in range(begin, end):
        if kinds[i] != at.ARRIVAL:
            continue
        event = events[i]
        row = rows[event]
        if row < 0:
            continue
        _describe(values[event], out[row])
        for j in range(ratios.shape[1]):
            out[row, ratios[0, j]] = out[row, ratios[1, j]] / out[row, ratios[2, j]]
