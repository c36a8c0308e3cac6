"""Prompt templates: the prompt with numbers and names folded, so that one script with many values is one template.

Works on UTF-8 bytes in one pass, so that a prompt of any language folds in nanoseconds per byte and the same bytes result
offline and online. Only a keyed hash of the folded prompt is kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

LONGEST = 512
"""Bytes of a prompt that make its template."""
_DIGIT, _NAME = np.uint8(ord("0")), np.uint8(ord("A"))
_SPACE = np.uint8(32)


@njit(cache=True, nogil=True)
def fold_into(data, start, stop, out, position):  # type: ignore[no-untyped-def]
    """Fold bytes [start, stop) into `out` from `position` on; return the position after the last byte written.

    A word with a digit becomes 0; a capitalised word that does not begin a sentence becomes A; other words are lower-cased;
    a run of equal placeholders is one; everything between words is one space.
    """
    i = start
    sentence = True
    previous = _SPACE
    while i < stop:
        first = i
        digit = False
        while i < stop:
            c = data[i]
            is_digit = 48 <= c <= 57
            if not (is_digit or 65 <= c <= 90 or 97 <= c <= 122 or c >= 128 or c == 39 or c == 95):
                break
            digit = digit or is_digit
            i += 1
        if i == first:
            c = data[i]
            if c == 46 or c == 33 or c == 63 or c == 10:
                sentence = True
            i += 1
            continue
        capital = 65 <= data[first] <= 90 and not sentence
        sentence = False
        if digit or capital:
            mark = _DIGIT if digit else _NAME
            if previous == mark:
                continue
            previous = mark
            out[position] = mark
            position += 1
        else:
            previous = _SPACE
            for j in range(first, i):
                c = data[j]
                out[position] = c + 32 if 65 <= c <= 90 else c
                position += 1
        out[position] = _SPACE
        position += 1
    return position


@njit(cache=True, nogil=True)
def fold_spans(data, start, stop, out, out_start, out_stop):  # type: ignore[no-untyped-def]
    """Fold spans of `data` one after another into `out`; spans with stop < start stay null (out_stop = -1)."""
    position = 0
    for i in range(len(start)):
        out_start[i] = position
        if stop[i] < start[i]:
            out_stop[i] = -1
            continue
        position = fold_into(data, start[i], min(stop[i], start[i] + LONGEST), out, position)
        out_stop[i] = position


def fold_all(
    data: npt.NDArray[np.uint8], start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (bytes, start, stop) of the folded spans; uint8 and int64[n]."""
    room = int(np.minimum(np.maximum(stop - start, 0), LONGEST).sum()) + 2 * len(start) + 1
    out = np.empty(2 * room, np.uint8)
    out_start, out_stop = np.empty(len(start), np.int64), np.empty(len(start), np.int64)
    fold_spans(data, start, stop, out, out_start, out_stop)
    return out, out_start, out_stop
