"""The time stamp of combined logs, `17/May/2015:10:05:03 +0000`, by arithmetic on its fixed positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.events import MICROSECONDS

LENGTH = 26
_MONTHS = {
    int.from_bytes(name.encode(), "big"): number
    for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
}
_MONTH_KEYS = np.array(sorted(_MONTHS), np.int64)
_MONTH_NUMBERS = np.array([_MONTHS[int(key)] for key in _MONTH_KEYS], np.int64)
_DIGITS = np.array([0, 1, 7, 8, 9, 10, 12, 13, 15, 16, 18, 19, 22, 23, 24, 25])
_MARKS = {2: "/", 6: "/", 11: ":", 14: ":", 17: ":", 20: " "}
_MINUTES_A_DAY = 24 * 60


def microseconds_of(stamps: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Turn an Arrow large_string array of stamps, each of 26 bytes and not null, into µs since 1970.

    Returns int64[n] and bool[n], false where the text is no such time (the value is then meaningless). A minute has
    seconds 0 to 60, so that a leap second is read as the next second.
    """
    rows = len(stamps)
    first = int(np.frombuffer(stamps.buffers()[1], np.int64, 1, stamps.offset * 8)[0]) if rows else 0
    text = np.frombuffer(stamps.buffers()[2] or b"", np.uint8, rows * LENGTH, first).reshape(rows, LENGTH)
    digits = text.take(_DIGITS, 1) - np.uint8(48)  # a byte below "0" wraps round and is no digit either
    good = (digits <= 9).all(1)
    for at, mark in _MARKS.items():
        good &= text[:, at] == ord(mark)
    number = digits.astype(np.int64)
    day = number[:, 0] * 10 + number[:, 1]
    year = number[:, 2] * 1000 + number[:, 3] * 100 + number[:, 4] * 10 + number[:, 5]
    hour, minute, second, zone_hour, zone_minute = (number[:, i] * 10 + number[:, i + 1] for i in range(6, 16, 2))
    month, known = _months(text)
    behind = text[:, 21] == ord("-")
    good &= known & (behind | (text[:, 21] == ord("+")))
    good &= (hour < 24) & (minute < 60) & (second <= 60) & (zone_hour < 24) & (zone_minute < 60)
    months = np.where(good, (year - 1970) * 12 + month, 0)
    begin = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    after = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    good &= (day >= 1) & (day <= after - begin)
    zone = (zone_hour * 60 + zone_minute) * np.where(behind, -1, 1)
    minutes = (begin + day - 1) * _MINUTES_A_DAY + hour * 60 + minute - zone
    return np.where(good, (minutes * 60 + second) * MICROSECONDS, 0), good


def _months(text: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the month of each row of stamp bytes, 0 to 11, and whether its name is known."""
    name = (text[:, 3:6] | 0x20).astype(np.int64)
    key = (name[:, 0] << 16) | (name[:, 1] << 8) | name[:, 2]
    at = np.minimum(np.searchsorted(_MONTH_KEYS, key), len(_MONTH_KEYS) - 1)
    return _MONTH_NUMBERS[at], _MONTH_KEYS[at] == key
