"""From events to what the kernel reads: hashes and numbers, one row an event.

`Preparer.table` takes an Arrow table, `Preparer.arrival` and `Preparer.completion` one event as a gateway sends it. Both call
the same functions on the same texts, and give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from classifier.events import MICROSECONDS, Event, microseconds
from classifier.features import layout as at
from classifier.features.agents import agent_class, normal_agent
from classifier.features.hashing import Hasher, text_spans
from classifier.features.numerics import log2_positive
from classifier.features.paths import path_traits
from classifier.features.prompts import fold, fold_all

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_DOT, _COLON = ord("."), ord(":")


@dataclass(slots=True)
class Events:
    """Prepared events, in any order: one row an event.

    time int64[n] arrival in µs; end int64[n] completion in µs, equal to `time` where the duration is missing or under 1 µs;
    hashes uint64[n, HASHES]; values float64[n, VALUES]; row int64[n] number of the event in the input.
    """

    time: Integers
    end: Integers
    hashes: npt.NDArray[np.uint64]
    values: Floats
    row: Integers

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: Any) -> Events:
        """Return the events at `index` (an index array, mask or slice)."""
        return Events(self.time[index], self.end[index], self.hashes[index], self.values[index], self.row[index])

    @staticmethod
    def join(parts: list[Events]) -> Events:
        """Return the events of all parts, one after another."""
        return Events(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("time", "end", "hashes", "values", "row"))
        )

    @staticmethod
    def empty(n: int = 0) -> Events:
        """Return `n` events of which nothing is known."""
        zeros = np.zeros(n, np.int64)
        hashes, values = np.zeros((n, at.HASHES), np.uint64), np.full((n, at.VALUES), np.nan)
        return Events(zeros, zeros.copy(), hashes, values, np.arange(n))


@njit(cache=True, nogil=True)
def _log_of(values, shift, floor, out):  # type: ignore[no-untyped-def]
    """log2(max(values + shift, floor)); NaN stays NaN."""
    for i in range(len(values)):
        v = values[i] + shift
        out[i] = v if np.isnan(v) else log2_positive(max(v, floor))


@njit(cache=True, nogil=True)
def _network_ends(data, start, stop):  # type: ignore[no-untyped-def]
    """For IPv4 text: where its /24 ends (before the last dot). For anything else: -2."""
    for i in range(len(start)):
        if stop[i] < start[i]:
            continue
        end = -2
        for j in range(stop[i] - 1, start[i], -1):
            if data[j] == _DOT:
                end = j
                break
            if not 48 <= data[j] <= 57:
                break
        stop[i] = end


@lru_cache(maxsize=65_536)
def network_text(ip: str) -> str:
    """Return the text that names the network of an address: an IPv4 /24 without its last part, an IPv6 /48."""
    head, dot, tail = ip.rpartition(".")
    if dot and head and (not tail or (tail.isascii() and tail.isdecimal())):
        return head
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, IPv6Address):
        return str(ip_network((address.packed[:6] + bytes(10), 48)))
    return ip


def _coded(column: pa.Array) -> tuple[Integers, list[Any]]:
    """Return (codes int64[n], texts): each value is texts[code]; null is a text of its own, None."""
    coded = column.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    codes = coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [*texts, None]


def _numbers(column: pa.Array) -> Floats:
    """Return a numeric column as float64[n], NaN where null."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


class Preparer:
    """Turns events into hashes and numbers under one secret."""

    def __init__(self, secret: bytes) -> None:
        def domain(name: str) -> Hasher:
            return Hasher(secret, name)

        self._account, self._address, self._network = domain("account"), domain("address"), domain("network")
        self._fingerprint, self._agent = domain("fingerprint"), domain("agent")
        self._prompt, self._path_template = domain("prompt"), domain("path template")
        self._path, self._model, self._credential = domain("path"), domain("model"), domain("credential")
        cached: Callable[[Callable[[str | None], int]], Any] = lru_cache(maxsize=65_536)
        self._one = {
            name: cached(getattr(self, f"_{name}").of)
            for name in ("account", "address", "network", "fingerprint", "path", "model", "credential")
        }
        self._agent_of = cached(self._hash_agent)
        self._path_of = cached(self._hash_path_template)
        self._scratch = np.empty(1), np.empty(1)

    def _hash_agent(self, user_agent: str | None) -> int:
        return 0 if not user_agent else self._agent.of(normal_agent(user_agent))

    def _hash_path_template(self, path: str | None) -> int:
        return 0 if path is None else self._path_template.of(path_traits(path).template)

    # --- many events ---------------------------------------------------------------------------------------------------

    def table(self, events: pa.Table, first_row: int = 0) -> Events:
        """Prepare an event table (`events.EVENT_SCHEMA`); its first event is number `first_row` of the input."""
        batch = events.combine_chunks()
        column = {
            name: batch.column(name).chunk(0) if batch.num_rows else pa.array([], batch.schema.field(name).type)
            for name in batch.column_names
        }
        n = batch.num_rows
        time = column["time"].to_numpy(zero_copy_only=False).astype(np.int64)
        duration = _numbers(column["duration"])
        end = time + np.rint(np.nan_to_num(duration) * MICROSECONDS).astype(np.int64)
        hashes, values = np.zeros((n, at.HASHES), np.uint64), np.empty((n, at.VALUES))
        self._hash_identities(column, hashes)
        self._hash_contents(column, hashes, values)
        self._agents(column, hashes, values)
        self._values(column, time, duration, values)
        return Events(time, end, hashes, values, np.arange(first_row, first_row + n))

    def _hash_identities(self, column: dict[str, pa.Array], hashes: npt.NDArray[np.uint64]) -> None:
        data, start, stop = text_spans(column["ip"])
        hashes[:, at.H_ADDRESS] = self._address.of_spans(data, start, stop)
        _network_ends(data, start, stop)
        hashes[:, at.H_NETWORK] = self._network.of_spans(data, start, stop)
        for i in np.flatnonzero(stop == -2):
            hashes[i, at.H_NETWORK] = self._one["network"](network_text(column["ip"][i].as_py()))
        account = self._account.of_column(column["account"])
        hashes[:, at.H_CLIENT] = np.where(account != 0, account, hashes[:, at.H_ADDRESS])
        hashes[:, at.H_CREDENTIAL] = self._credential.of_column(column["credential"])

    def _hash_contents(self, column: dict[str, pa.Array], hashes: npt.NDArray[np.uint64], values: Floats) -> None:
        codes, models = _coded(column["model"])
        hashes[:, at.H_MODEL] = np.array([self._one["model"](m) for m in models], np.uint64)[codes]
        codes, paths = _coded(column["path"])
        hashes[:, at.H_PATH] = np.array([self._one["path"](p) for p in paths], np.uint64)[codes]
        template = np.array([self._path_of(p) for p in paths], np.uint64)[codes]
        data, start, stop = text_spans(column["prompt"])
        prompt = self._prompt.of_spans(*fold_all(data, start, stop))
        hashes[:, at.H_TEMPLATE] = np.where(prompt != 0, prompt, template)
        traits = np.array([_path_numbers(p) for p in paths])
        values[:, [at.V_DEPTH, at.V_LENGTH, at.V_QUERY, at.V_ASSET, at.V_PROBE]] = traits[codes]

    def _agents(self, column: dict[str, pa.Array], hashes: npt.NDArray[np.uint64], values: Floats) -> None:
        codes, agents = _coded(column["user_agent"])
        agent = np.array([self._agent_of(a) for a in agents], np.uint64)[codes]
        values[:, at.V_AGENT] = np.array([agent_class(a) for a in agents], np.float64)[codes]
        codes, fingerprints = _coded(column["fingerprint"])
        known = np.array([self._one["fingerprint"](f) for f in fingerprints], np.uint64)[codes]
        hashes[:, at.H_FINGERPRINT] = np.where(known != 0, known, agent)

    def _values(self, column: dict[str, pa.Array], time: Integers, duration: Floats, values: Floats) -> None:
        codes, methods = _coded(column["method"])
        values[:, at.V_POST] = np.array([_method_number(m) for m in methods], np.float64)[codes]
        values[:, at.V_REFERER] = column["referer"].is_valid().to_numpy(zero_copy_only=False)
        asked = _numbers(column["max_tokens"])
        values[:, at.V_ASKED] = asked
        age = np.maximum(time * (1.0 / MICROSECONDS) - _numbers(column["account_created"]), 0.0)
        length = _numbers(pc.utf8_length(column["prompt"]))
        for index, numbers, shift, floor in (
            (at.V_REQUEST, _numbers(column["request_bytes"]), 1.0, 1.0),
            (at.V_CAP, asked, 1.0, 1.0),
            (at.V_AGE, age, 1.0, 1.0),
            (at.V_PROMPT, length, 1.0, 1.0),
            (at.V_RESPONSE, _numbers(column["response_bytes"]), 1.0, 1.0),
            (at.V_DURATION, duration, 0.0, 1e-3),
        ):
            _log_of(numbers, shift, floor, values[:, index])
        values[:, at.V_STATUS] = _numbers(column["status"])
        values[:, at.V_IN] = _numbers(column["input_tokens"])
        values[:, at.V_OUT] = _numbers(column["output_tokens"])
        refused = pc.is_in(column["verdict"], value_set=pa.array(["challenge", "block"]))
        values[:, at.V_REFUSED] = refused.to_numpy(zero_copy_only=False)

    # --- one event -----------------------------------------------------------------------------------------------------

    def arrival(self, event: Event) -> Events:
        """Prepare what is known of one event at its arrival: an `Events` of one row, completion values NaN."""
        out = Events.empty(1)
        hashes, values = out.hashes[0], out.values[0]
        out.time[0] = out.end[0] = microseconds(event.time)
        one = self._one
        hashes[at.H_ADDRESS] = one["address"](event.ip)
        hashes[at.H_NETWORK] = one["network"](network_text(event.ip))
        hashes[at.H_CLIENT] = one["account"](event.account) or hashes[at.H_ADDRESS]
        hashes[at.H_CREDENTIAL] = one["credential"](event.credential)
        hashes[at.H_MODEL] = one["model"](event.model)
        hashes[at.H_PATH] = one["path"](event.path)
        hashes[at.H_FINGERPRINT] = one["fingerprint"](event.fingerprint) or self._agent_of(event.user_agent)
        hashes[at.H_TEMPLATE] = (
            self._path_of(event.path) if event.prompt is None else self._prompt.of_bytes(fold(event.prompt))
        )
        values[[at.V_DEPTH, at.V_LENGTH, at.V_QUERY, at.V_ASSET, at.V_PROBE]] = _path_numbers(event.path)
        values[at.V_AGENT] = agent_class(event.user_agent)
        values[at.V_POST] = _method_number(event.method)
        values[at.V_REFERER] = event.referer is not None
        if event.max_tokens is not None:
            values[at.V_ASKED] = event.max_tokens
            values[at.V_CAP] = self._log(event.max_tokens, 1.0, 1.0)
        if event.request_bytes is not None:
            values[at.V_REQUEST] = self._log(event.request_bytes, 1.0, 1.0)
        if event.account_created is not None:
            age = max(out.time[0] * (1.0 / MICROSECONDS) - event.account_created, 0.0)
            values[at.V_AGE] = self._log(age, 1.0, 1.0)
        if event.prompt is not None:
            values[at.V_PROMPT] = self._log(len(event.prompt), 1.0, 1.0)
        return out

    def completion(self, values: Floats, event: Event) -> None:
        """Add what is known when the response has ended to the values (float64[VALUES]) of the event's arrival."""
        missing = float("nan")
        values[at.V_DURATION] = missing if event.duration is None else self._log(event.duration, 0.0, 1e-3)
        values[at.V_STATUS] = missing if event.status is None else event.status
        values[at.V_IN] = missing if event.input_tokens is None else event.input_tokens
        values[at.V_OUT] = missing if event.output_tokens is None else event.output_tokens
        size = event.response_bytes
        values[at.V_RESPONSE] = missing if size is None else self._log(size, 1.0, 1.0)
        values[at.V_REFUSED] = event.verdict in ("challenge", "block")

    def _log(self, value: float, shift: float, floor: float) -> float:
        number, out = self._scratch
        number[0] = value
        _log_of(number, shift, floor, out)
        return float(out[0])


_METHODS = {"GET": 0.0, "POST": 1.0}


def _method_number(method: str | None) -> float:
    return _METHODS.get(method or "", -1.0)


@lru_cache(maxsize=65_536)
def _path_numbers(path: str | None) -> tuple[float, ...]:
    """Depth, log length, query, asset, probe of a path: the numbers of `PathTraits` (0 for None, which no event has)."""
    if path is None:
        return (0.0,) * 5
    traits = path_traits(path)
    length = math.log2(1.0 + traits.length)
    return (float(traits.depth), length, float(traits.query), float(traits.asset), float(traits.probe))
