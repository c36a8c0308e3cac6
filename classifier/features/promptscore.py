"""The prompt score: how much a prompt reads like a jailbreak, an injection or a try at the system prompt, as log odds.

A linear model over hashed n-grams, in one pass over UTF-8 bytes. What is read of a prompt, in this order:

1. The first `HEAD` bytes and the last `TAIL`; a prompt of at most both is read whole. So a prompt of any length costs bounded
   time, and only what stands in the middle of a very long one is not seen.
2. A-Z become a-z, digits 0, control characters and runs of spaces one space. Other bytes stay as they are.
3. Every five bytes in a row, and every word (letters, digits, apostrophes and all bytes from 128), make one of `BUCKETS`
   numbers each. Per block of `BLOCK` letters (what is left of step 2) a number counts once: repeating adds nothing.
4. Two neighbouring blocks are a window: bias + step * (sum of its numbers' weights) / sqrt(how many they are).
5. The score is the greatest of all windows, within ±`LIMIT`: harmless text before or after an attack cannot dilute it.

Weights are integers, so their sums are exact and in no order; the rest are single IEEE operations. One prompt alone and the
same prompt among many have the same score to the last bit, on any machine.

The hash has no secret: weights belong to numbers. Who has the weights can look for words, or for gibberish that falls
on the same numbers, that lower a window's score; the words he would find without knowing the hash. A secret hash would
not stop that and would need training anew per deployment. Hence the score feeds a client's history and is no verdict.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from classifier.errors import BundleError
from classifier.features.hashing import text_spans

PROMPT_FILE: Final = "prompt.npy"
FORMAT: Final = 1
"""Of the file and of the hash below; whoever changes either raises it."""
BITS: Final = 15
BUCKETS: Final = 1 << BITS
SEEN: Final = BUCKETS >> 6
BLOCK: Final = 128
HEAD: Final = 8192
TAIL: Final = 8192
LIMIT: Final = 16.0
MOST_PER_BLOCK: Final = 2 * BLOCK + 2
"""Numbers that one block can have at most: a 5-gram for each byte, a word for every other, and the end of the text."""
RECORD: Final = np.dtype([("format", "<i4"), ("step", "<f8"), ("bias", "<f8"), ("weights", "<i2", (BUCKETS,))])
"""What `prompt.npy` holds, once. A weight is weights[i] * step."""

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

# All arithmetic is unsigned: numba makes a float of a signed and an unsigned integer, and need not look for a negative index.
_SPACE = np.uint64(32)
_SPACES = np.uint64(0x2020202020)
_FIVE_BYTES = np.uint64((1 << 40) - 1)
_BYTE = np.uint64(0xFF)
_OF_WORD = np.uint64(0x100)
_EIGHT, _SIX, _SIXTY_THREE, _ONE, _NONE = (np.uint64(n) for n in (8, 6, 63, 1, 0))
_SHIFT = np.uint64(64 - BITS)
_BLOCK = np.uint64(BLOCK)
# Odd multipliers: 2^64 over the golden ratio for n-grams (Fibonacci hashing), FNV-1a's prime for words.
_GRAM_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WORD_PRIME = np.uint64(0x100000001B3)
_WORD_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)


def _letters() -> npt.NDArray[np.uint64]:
    """Return what each byte is folded to, and `_OF_WORD` with it where the byte belongs to a word."""
    letters = np.arange(256, dtype=np.uint64)
    for byte in range(256):
        character = chr(byte)
        if byte <= 32 or byte == 127:
            letters[byte] = _SPACE
        elif byte < 128 and character.isdigit():
            letters[byte] = ord("0")
        elif byte < 128:
            letters[byte] = ord(character.lower())
        if byte >= 128 or character.isalnum() or character == "'":
            letters[byte] |= _OF_WORD
    return letters


_LETTERS = _letters()
_outer = njit(cache=True, nogil=True)
_compiled = njit(cache=True, nogil=True, _nrt=False)
"""Without reference counts, which would take longer than the work: these functions allocate nothing."""
_inlined = njit(cache=True, nogil=True, forceinline=True, _nrt=False)


@_inlined
def _note(bucket, weights, seen, out, count, total):  # type: ignore[no-untyped-def]
    """Count a number and its weight unless this block has it already; return (how many, sum of weights). Without a branch."""
    place, bit = bucket >> _SIX, _ONE << (bucket & _SIXTY_THREE)
    before = seen[place]
    seen[place] = before | bit
    if out is not None:
        out[count] = bucket
    new = (before & bit) == _NONE
    weight = np.int64(weights[bucket])
    return count + np.uint64(new), total + (weight if new else np.int64(0))


@_inlined
def _letter(known, recent, word, weights, seen, out, count, total):  # type: ignore[no-untyped-def]
    """Note the n-gram that a letter ends, and the word that it ends; return (recent, word, count, total)."""
    letter = known & _BYTE
    recent = (recent << _EIGHT) | letter
    number = ((recent & _FIVE_BYTES) * _GRAM_FACTOR) >> _SHIFT
    count, total = _note(number, weights, seen, out, count, total)
    if known != letter:
        word = (word ^ letter) * _WORD_PRIME
    elif word != _NONE:
        count, total = _note((word * _WORD_FACTOR) >> _SHIFT, weights, seen, out, count, total)
        word = _NONE
    return recent, word, count, total


@_inlined
def _block(data, start, stop, recent, word, weights, seen, out):  # type: ignore[no-untyped-def]
    """Sum the different numbers of the next `BLOCK` letters of bytes [start, stop); write them into `out` unless it is None.

    Return (end, how many, sum of weights, recent, word); the block ends at byte `end`, which is `stop` for the last.
    `recent` holds the letters before, the newest lowest, and `word` the hash of a word that has begun (0: none). Spaces
    after a space are no letters. After the last block follows a space, which ends the last word.
    """
    seen[:] = _NONE
    count, total, letters = _NONE, np.int64(0), _NONE
    i, end = np.uint64(start), np.uint64(stop)
    while i < end and letters < _BLOCK:
        # A byte is one letter at most, so that so many need no look at how many letters there are.
        until = min(end, i + (_BLOCK - letters))
        for j in range(i, until):
            known = _LETTERS[data[j]]
            if known == _SPACE and (recent & _BYTE) == _SPACE:
                continue
            letters += _ONE
            recent, word, count, total = _letter(known, recent, word, weights, seen, out, count, total)
        i = until
    while i < end and _LETTERS[data[i]] == _SPACE and (recent & _BYTE) == _SPACE:
        i += _ONE
    if i == end and (recent & _BYTE) != _SPACE:
        recent, word, count, total = _letter(_SPACE, recent, word, weights, seen, out, count, total)
    return np.int64(i), np.int64(count), total, recent, word


@_inlined
def _parts(start, stop):  # type: ignore[no-untyped-def]
    """Where the first part that is read ends and the second begins; the second is empty for a prompt that is read whole."""
    if stop - start <= HEAD + TAIL:
        return stop, stop
    return start + HEAD, stop - TAIL


@_compiled
def _score_part(data, start, stop, weights, step, bias, seen):  # type: ignore[no-untyped-def]
    """Return the greatest score of all windows of bytes [start, stop)."""
    best, full = -np.inf, False
    total_before, count_before = np.int64(0), np.int64(0)
    recent, word = _SPACES, _NONE
    i = start
    while True:
        i, count, total, recent, word = _block(data, i, stop, recent, word, weights, seen, None)
        last = i == stop
        if full or last:
            both = count_before + count
            score = bias
            if both > 0:
                score = bias + step * (total_before + total) / math.sqrt(both)
            best = max(best, score)
        if last:
            return best
        full, total_before, count_before = True, total, count


@_compiled
def score_span(data, start, stop, weights, step, bias, seen):  # type: ignore[no-untyped-def]
    """Return the score of bytes [start, stop) of `data`; `seen` uint64[SEEN] is room to work in."""
    head, tail = _parts(start, stop)
    best = _score_part(data, start, head, weights, step, bias, seen)
    if tail < stop:
        best = max(best, _score_part(data, tail, stop, weights, step, bias, seen))
    return min(max(best, -LIMIT), LIMIT)


@_outer
def _score_spans(data, start, stop, weights, step, bias, scores):  # type: ignore[no-untyped-def]
    """Score byte spans [start, stop) of `data` into `scores`; NaN where stop < start."""
    seen = np.empty(SEEN, np.uint64)
    for i in range(len(start)):
        if stop[i] < start[i]:
            scores[i] = np.nan
            continue
        scores[i] = score_span(data, start[i], stop[i], weights, step, bias, seen)


@_outer
def _score_one(data, stop, weights, step, bias):  # type: ignore[no-untyped-def]
    """Return the score of bytes [0, stop) of `data`."""
    return score_span(data, np.int64(0), stop, weights, step, bias, np.empty(SEEN, np.uint64))


@_compiled
def _number_part(data, start, stop, prompt, weights, seen, numbers, ends, prompts, parts, first):  # type: ignore[no-untyped-def]
    """Write the numbers of every block of one part, which begins with block `first`; return how many blocks there are now."""
    recent, word = _SPACES, _NONE
    i, block = start, first
    while True:
        begin = ends[block - 1] if block else np.int64(0)
        i, count, _, recent, word = _block(data, i, stop, recent, word, weights, seen, numbers[begin:])
        ends[block], prompts[block], parts[block] = begin + count, prompt, first
        block += 1
        if i == stop:
            return block


@_compiled
def _number_spans(data, start, stop, weights, seen, numbers, ends, prompts, parts):  # type: ignore[no-untyped-def]
    """Write the numbers of every block of every span; return how many blocks there are."""
    blocks = np.int64(0)
    for i in range(len(start)):
        if stop[i] < start[i]:
            continue
        head, tail = _parts(start[i], stop[i])
        blocks = _number_part(data, start[i], head, i, weights, seen, numbers, ends, prompts, parts, blocks)
        if tail < stop[i]:
            blocks = _number_part(data, tail, stop[i], i, weights, seen, numbers, ends, prompts, parts, blocks)
    return blocks


@dataclass(frozen=True)
class Blocks:
    """The different numbers of every block, for training: those of block i are numbers[ends[i - 1]:ends[i]].

    numbers uint16[m]; ends, prompt (which prompt), part (number of the first block of its part) int64[blocks].
    """

    numbers: npt.NDArray[np.uint16]
    ends: Integers
    prompt: Integers
    part: Integers


def blocks_of(column: pa.Array) -> Blocks:
    """Return the numbers that the score of each prompt of a string column is the sum of. Nulls have none."""
    data, start, stop = text_spans(column)
    read = np.minimum(np.maximum(stop - start, 0), HEAD + TAIL)
    most = int((read // BLOCK + 3).sum())
    numbers = np.empty(int(2 * read.sum()) + 4 * len(read) + 2 * MOST_PER_BLOCK, np.uint16)
    ends, prompts, parts = (np.zeros(most + 1, np.int64) for _ in range(3))
    count = _number_spans(
        data, start, stop, np.zeros(BUCKETS, np.int16), np.empty(SEEN, np.uint64), numbers, ends, prompts, parts
    )
    last = ends[count - 1] if count else 0
    return Blocks(numbers[:last], ends[:count], prompts[:count], parts[:count])


class PromptScorer:
    """Scores prompts with the weights of a `prompt.npy`. `of_column` and `of` agree on every text, bit for bit.

    weights int16[BUCKETS], in steps of `step`; `bias` is the score of a prompt of which nothing is known.
    """

    def __init__(self, weights: npt.NDArray[np.int16], step: float, bias: float) -> None:
        self.weights = np.ascontiguousarray(weights, np.int16)
        self.step, self.bias = float(step), float(bias)

    @staticmethod
    def from_bytes(content: bytes, where: str = PROMPT_FILE) -> PromptScorer:
        """Read the content of a `prompt.npy`. Raises BundleError, naming `where` it is from."""
        return _parsed(content, where)

    def to_bytes(self) -> bytes:
        """Return the content of a `prompt.npy`; equal weights give equal bytes."""
        record = np.array([(FORMAT, self.step, self.bias, self.weights)], RECORD)
        file = io.BytesIO()
        np.lib.format.write_array(file, record, version=(1, 0), allow_pickle=False)
        return file.getvalue()

    def of_spans(self, data: Bytes, start: Integers, stop: Integers) -> npt.NDArray[np.float64]:
        """Score byte spans [start, stop) of `data`: float64[n], NaN where stop < start."""
        scores = np.empty(len(start))
        _score_spans(data, start, stop, self.weights, self.step, self.bias, scores)
        return scores

    def of_column(self, column: pa.Array) -> npt.NDArray[np.float64]:
        """Score a string column: float64[n], NaN where null."""
        return self.of_spans(*text_spans(column))

    def of(self, text: str | None) -> float:
        """Score one prompt; NaN for None."""
        if text is None:
            return math.nan
        content = what_is_read(text)
        score: float = _score_one(content, len(content), self.weights, self.step, self.bias)
        return score


def what_is_read(text: str) -> bytes:
    """Return the UTF-8 of a prompt; of a long one, what is read of it and a byte in the place of what lies between."""
    if len(text) <= HEAD + TAIL:
        return text.encode()
    # A character is a byte or more, so all bytes that are read are in these, and the rest need not be encoded.
    return text[:HEAD].encode()[:HEAD] + b" " + text[-TAIL:].encode()[-TAIL:]


def _parsed(content: bytes, where: str) -> PromptScorer:
    """Read the header first: what does not fit is refused before anything of its size is allocated."""
    file = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the .npy format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, SyntaxError, TypeError) as error:
        raise BundleError(f"{where} is no prompt score: {_first_line(error)}; train the bundle again") from None
    body = content[file.tell() :]
    if dtype != RECORD or shape != (1,) or len(body) != RECORD.itemsize:
        raise BundleError(
            f"{where} holds {shape} of {_short(dtype)} in {len(body)} bytes, but this version reads one record of "
            f"{BUCKETS} weights in {RECORD.itemsize} bytes; train the bundle again"
        )
    record: Any = np.frombuffer(body, RECORD)[0]
    if record["format"] != FORMAT:
        raise BundleError(f"{where} has format {record['format']}, but this version reads {FORMAT}; train it again")
    step, bias = float(record["step"]), float(record["bias"])
    if not (math.isfinite(step) and step > 0 and abs(bias) <= LIMIT):
        raise BundleError(f"{where} has a step of {step} and a bias of {bias}, which no training gives; train it again")
    return PromptScorer(record["weights"], step, bias)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _short(dtype: np.dtype[Any]) -> str:
    return str(dtype)[:120]


def shipped_bytes() -> bytes:
    """Return the `prompt.npy` that comes with botsieve, which training puts into a bundle unless it is given another."""
    return resources.files("classifier.features").joinpath(PROMPT_FILE).read_bytes()


@cache
def shipped() -> PromptScorer:
    """Return the scorer that comes with botsieve."""
    return PromptScorer.from_bytes(shipped_bytes(), f"the {PROMPT_FILE} of the package")
