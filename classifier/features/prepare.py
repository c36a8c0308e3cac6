"""From events to what the kernel reads: hashes and numbers, one row an event.

`Preparer.table` takes an Arrow table, `Preparer.arrival` and `Preparer.completion` one event as a gateway sends it. Both call
the same functions on the same texts, and give the same bytes.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from classifier.events import MICROSECONDS, Event, microseconds
from classifier.features import agents
from classifier.features import layout as at
from classifier.features.agents import normal_agent
from classifier.features.hashing import SIPHASH24, Hasher, distinct_texts, hash_span, text_spans
from classifier.features.numerics import log2_positive
from classifier.features.paths import path_traits
from classifier.features.prompts import LONGEST, fold_all, fold_into
from classifier.features.promptscore import SEEN, PromptScorer, score_span, shipped, what_is_read

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
_DOT = ord(".")
_G, _E, _T, _P, _O, _S = (ord(letter) for letter in "GETPOS")


@dataclass(slots=True)
class Events:
    """Prepared events, in any order: one row an event.

    time int64[n] arrival in µs; end int64[n] completion in µs, equal to `time` where the duration is missing or under 1 µs;
    hashes uint64[n, HASHES]; values float32[n, VALUES]; row int64[n] number of the event in the input.
    """

    time: Integers
    end: Integers
    hashes: npt.NDArray[np.uint64]
    values: Values
    row: Integers

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: Any) -> Events:
        """Return the events at `index` (an index array, mask or slice)."""
        return Events(self.time[index], self.end[index], self.hashes[index], self.values[index], self.row[index])

    @staticmethod
    def room(n: int, after: Events | None) -> tuple[Events, int]:
        """Return arrays that begin with the events `after` which `n` others will come, and how many those are."""
        held = 0 if after is None else len(after)
        time, end, row = (np.empty(held + n, np.int64) for _ in range(3))
        hashes, values = np.empty((held + n, at.HASHES), np.uint64), np.empty((held + n, at.VALUES), np.float32)
        joined = Events(time, end, hashes, values, row)
        if after is not None:
            for name in ("time", "end", "hashes", "values", "row"):
                getattr(joined, name)[:held] = getattr(after, name)
        return joined, held

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
        hashes, values = np.zeros((n, at.HASHES), np.uint64), np.zeros((n, at.VALUES), np.float32)
        return Events(zeros, zeros.copy(), hashes, values, np.arange(n))


_compiled = njit(cache=True, nogil=True, _nrt=False)
"""Without reference counts, which would take as long as the work: these functions allocate nothing."""
_inlined = njit(cache=True, nogil=True, forceinline=True, _nrt=False)


@_inlined
def _log_of(value, shift, floor):  # type: ignore[no-untyped-def]
    """log2(max(value + shift, floor)); NaN stays NaN."""
    value += shift
    logarithm = log2_positive(value if value > floor else floor)
    return logarithm if value == value else value


@_inlined
def _account_age(time, created):  # type: ignore[no-untyped-def]
    """Log age at `time` (µs) of an account made at `created` (s), at least 0; NaN stays NaN."""
    age = time * (1.0 / MICROSECONDS) - created
    return _log_of(0.0 if age < 0.0 else age, 1.0, 1.0)


@_compiled
def _take_logs(values, shift, floor):  # type: ignore[no-untyped-def]
    """Put `_log_of` of each value in its place: a column at a time, which takes a fraction of the time of a row at a time."""
    for i in range(len(values)):
        values[i] = _log_of(values[i], shift, floor)


@_compiled
def _take_ages(times, created):  # type: ignore[no-untyped-def]
    """Put the log age of each account in the place of the time when it was made."""
    for i in range(len(times)):
        created[i] = _account_age(times[i], created[i])


@_inlined
def _method_code(data, start, stop):  # type: ignore[no-untyped-def]
    """1 for POST, 0 for GET, -1 for another method or none."""
    if (
        stop - start == 4
        and data[start] == _P
        and data[start + 1] == _O
        and data[start + 2] == _S
        and data[start + 3] == _T
    ):
        return 1.0
    if stop - start == 3 and data[start] == _G and data[start + 1] == _E and data[start + 2] == _T:
        return 0.0
    return -1.0


@_inlined
def _count_and_sum(values, count, total, value):  # type: ignore[no-untyped-def]
    """Write a figure as a count and a sum: 0 and 0 where it is missing."""
    known = value == value
    values[count] = np.float32(1.0 if known else 0.0)
    values[total] = np.float32(value if known else 0.0)


@_inlined
def _describe_request(  # type: ignore[no-untyped-def]
    values, method, referer, size, limit, cap, age, prompt, prompt_score, depth, length, query, asset, probe, agent,
):  # fmt: skip
    """Write what is known at arrival: of the event, its path and its kind of agent. `method` is 1 POST, 0 GET, -1 other.

    The log of the request's size is given, that of the limit, `cap`, that of the account's age and that of the prompt's length.
    """
    values[at.V_POST] = np.float32(1.0 if method == 1.0 else 0.0)
    values[at.V_OTHER_METHOD] = np.float32(1.0 if method < 0.0 else 0.0)
    values[at.V_REFERER] = np.float32(referer)
    _count_and_sum(values, at.V_AGE_N, at.V_AGE, age)
    _count_and_sum(values, at.V_REQUEST_N, at.V_REQUEST, size)
    _count_and_sum(values, at.V_CAP_N, at.V_CAP, cap)
    _count_and_sum(values, at.V_PROMPT_N, at.V_PROMPT, prompt)
    score = np.float32(prompt_score)
    values[at.V_PROMPT_SCORE] = score if score == score else np.float32(0.0)
    values[at.V_PROMPT_ALARM] = np.float32(1.0 if score > at.PROMPT_ALARM else 0.0)
    values[at.V_LIMIT] = np.float32(limit)
    values[at.V_DEPTH] = np.float32(depth)
    values[at.V_LENGTH] = np.float32(length)
    values[at.V_QUERY] = np.float32(query)
    values[at.V_ASSET] = np.float32(asset)
    values[at.V_PROBE] = np.float32(probe)
    values[at.V_NO_AGENT] = np.float32(1.0 if agent == agents.MISSING else 0.0)
    values[at.V_BROWSER] = np.float32(1.0 if agent == agents.BROWSER else 0.0)
    values[at.V_SDK] = np.float32(1.0 if agent == agents.CLIENT_LIBRARY else 0.0)
    values[at.V_DECLARED_BOT] = np.float32(1.0 if agent == agents.DECLARED_BOT else 0.0)


@_inlined
def _describe_answer(values, status, tokens_in, tokens_out, size, spent, refused):  # type: ignore[no-untyped-def]
    """Write what is known at completion, to the values of its arrival; NaN where missing. Size and duration are logs."""
    limit = np.float64(values[at.V_LIMIT])
    both = tokens_out == tokens_out and limit == limit
    auth, missing, limited = status == 401.0 or status == 403.0, status == 404.0, status == 429.0
    other = status >= 400.0 and status < 500.0 and not (auth or missing or limited)
    values[at.V_DONE] = np.float32(1.0 if status == status else 0.0)
    values[at.V_AUTH] = np.float32(1.0 if auth else 0.0)
    values[at.V_MISSING] = np.float32(1.0 if missing else 0.0)
    values[at.V_LIMITED] = np.float32(1.0 if limited else 0.0)
    values[at.V_CLIENT_ERROR] = np.float32(1.0 if other else 0.0)
    values[at.V_SERVER_ERROR] = np.float32(1.0 if status >= 500.0 else 0.0)
    _count_and_sum(values, at.V_IN_N, at.V_IN, tokens_in)
    _count_and_sum(values, at.V_OUT_N, at.V_OUT, tokens_out)
    values[at.V_ASKED] = np.float32(limit if both else 0.0)
    values[at.V_USED] = np.float32(tokens_out if both else 0.0)
    _count_and_sum(values, at.V_RESPONSE_N, at.V_RESPONSE, size)
    _count_and_sum(values, at.V_DURATION_N, at.V_DURATION, spent)
    values[at.V_REFUSED] = np.float32(refused)


@_compiled
def _fill_values(  # type: ignore[no-untyped-def]
    method, method_start, method_stop, referer, size, limit, cap, age, prompt, prompt_score,
    status, tokens_in, tokens_out, response_size, spent, refused, path_code, paths, agent_code, agents_of, values,
):  # fmt: skip
    """Fill the values of events, float32[n, VALUES]."""
    for i in range(len(values)):
        path = path_code[i]
        _describe_request(
            values[i], _method_code(method, method_start[i], method_stop[i]), referer[i], size[i], limit[i], cap[i],
            age[i], prompt[i], prompt_score[i], paths[path, 0], paths[path, 1], paths[path, 2], paths[path, 3],
            paths[path, 4], agents_of[agent_code[i]],
        )  # fmt: skip
        _describe_answer(values[i], status[i], tokens_in[i], tokens_out[i], response_size[i], spent[i], refused[i])


@_compiled
def _fill_hashes(  # type: ignore[no-untyped-def]
    address, network, account, credential, fingerprint, model, prompt, path_code, path_hashes, agent_code, agent_hash, hashes,
):  # fmt: skip
    """Fill the hashes of events: uint64[n, HASHES]."""
    for i in range(len(address)):
        path, agent = path_code[i], agent_code[i]
        hashes[i, at.H_CLIENT] = account[i] if account[i] != 0 else address[i]
        hashes[i, at.H_ADDRESS] = address[i]
        hashes[i, at.H_NETWORK] = network[i]
        hashes[i, at.H_FINGERPRINT] = fingerprint[i] if fingerprint[i] != 0 else agent_hash[agent]
        hashes[i, at.H_TEMPLATE] = prompt[i] if prompt[i] != 0 else path_hashes[path, 1]
        hashes[i, at.H_PATH] = path_hashes[path, 0]
        hashes[i, at.H_MODEL] = model[i]
        hashes[i, at.H_CREDENTIAL] = credential[i]


@_compiled
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


def network_text(ip: str) -> str:
    """Return the text that names the network of an address: an IPv4 /24 without its last part, an IPv6 /48."""
    head, dot, tail = ip.rpartition(".")
    if dot and head and (not tail or (tail.isascii() and tail.isdecimal())):
        return head
    try:
        packed = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
    except (OSError, ValueError):
        return ip
    return socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10)) + "/48"


def _coded(column: pa.Array) -> tuple[Integers, list[Any]]:
    """Return (codes int64[n], texts): each value is texts[code]; null is a text of its own, None."""
    codes, rows = distinct_texts(*text_spans(column))
    return codes, column.take(pa.array(rows)).to_pylist()


def _numbers(column: pa.Array) -> Floats:
    """Return a numeric column as float64[n], NaN where null."""
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    return np.array(column.to_numpy(zero_copy_only=False), np.float64)


@njit(cache=True, nogil=True)
def _describe_requests(times, data, bounds, siphash24, key, weights, step, bias, hashes, values):  # type: ignore[no-untyped-def]
    """Fill hashes and what is known at arrival from the bytes of `Described`, and read the prompts.

    `data` holds the rows (`_ROW`) of all n events and then their prompts, that of event i in bytes [bounds[i], bounds[i + 1]).
    """
    folded, seen = np.empty(2 * LONGEST + 2, np.uint8), np.empty(SEEN, np.uint64)
    words = data[: bounds[0]].view(np.uint64)
    numbers, width = words.view(np.float64), len(words) // len(times)
    for i in range(len(times)):
        n, start, stop, score = numbers[i * width + at.HASHES : (i + 1) * width], bounds[i], bounds[i + 1], np.nan
        for j in range(at.HASHES):
            hashes[i, j] = words[i * width + j]
        for j in range(at.VALUES):
            values[i, j] = 0.0
        if n[5] == n[5]:
            length = fold_into(data, start, min(stop, start + LONGEST), folded, 0)
            hash_span(siphash24, folded, 0, length, key, hashes[i], at.H_TEMPLATE)
            score = score_span(data, start, stop, weights, step, bias, seen)
        size, cap, prompt = _log_of(n[2], 1.0, 1.0), _log_of(n[3], 1.0, 1.0), _log_of(n[5], 1.0, 1.0)
        age = _account_age(times[i], n[4])
        _describe_request(
            values[i], n[0], n[1], size, n[3], cap, age, prompt, score, n[6], n[7], n[8], n[9], n[10], n[11]
        )


@_compiled
def _describe_one_answer(values, status, tokens_in, tokens_out, response_bytes, duration, refused):  # type: ignore[no-untyped-def]
    size, spent = _log_of(response_bytes, 1.0, 1.0), _log_of(duration, 0.0, 1e-3)
    _describe_answer(values, status, tokens_in, tokens_out, size, spent, refused)


def _recall(column: dict[str, pa.Array], end: Integers, hashes: npt.NDArray[np.uint64]) -> None:
    """Take over what a journal knows better than its texts (`JOURNAL_SCHEMA`), where a row is of one."""

    def known(name: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
        array = column[name]
        return array.is_valid().to_numpy(zero_copy_only=False), array.fill_null(0).to_numpy(zero_copy_only=False)

    there, ends = known("end")
    end[there] = ends[there]
    for place, name in ((at.H_ADDRESS, "address_key"), (at.H_NETWORK, "network_key"), (at.H_TEMPLATE, "template_key")):
        there, keys = known(name)
        hashes[there, place] = keys[there]
    there, keys = known("client_key")
    account = column["account"].is_valid().to_numpy(zero_copy_only=False)
    hashes[there, at.H_CLIENT] = np.where(account, keys, hashes[:, at.H_ADDRESS])[there]


def _prompt_lengths(column: dict[str, pa.Array]) -> pa.Array:
    """Return the characters of each prompt: counted, or as a journal knows them."""
    counted = pc.cast(pc.utf8_length(column["prompt"]), pa.int64())
    return pc.coalesce(column["prompt_length"], counted) if "prompt_length" in column else counted


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


PathSays = tuple[int, int, tuple[float, ...]]


class Sayings(NamedTuple):
    """What the texts of an event say: functions of one text, None where there is none.

    `ip` gives the hashes of address and network; `path` its hash, its template's, and the five numbers of `PathTraits` (depth,
    log length, query, asset, probe); `agent` hash and class. The others give a hash.
    """

    ip: Callable[[str], tuple[int, int]]
    path: Callable[[str | None], PathSays]
    agent: Callable[[str | None], tuple[int, float]]
    account: Callable[[str | None], int]
    credential: Callable[[str | None], int]
    fingerprint: Callable[[str | None], int]
    model: Callable[[str | None], int]


KEPT = 65_536
"""Texts of each kind that are remembered with what they say."""
LONGEST_KEPT = 512
"""Characters up to which they are: what is longer is worked out each time, so that nobody fills the memory with it."""


class Preparer:
    """Turns events into hashes and numbers under one secret."""

    def __init__(self, secret: bytes, prompts: PromptScorer | None = None) -> None:
        """`prompts` scores prompts, as the bundle's `prompt.npy` says; None takes what the package ships."""
        self.prompts = shipped() if prompts is None else prompts

        def domain(name: str) -> Hasher:
            return Hasher(secret, name)

        self._account, self._address, self._network = domain("account"), domain("address"), domain("network")
        self._fingerprint, self._agent = domain("fingerprint"), domain("agent")
        self._prompt, self._path_template = domain("prompt"), domain("path template")
        self._path, self._model, self._credential = domain("path"), domain("model"), domain("credential")
        self._plain = Sayings(
            self._of_address_text, self._of_path, self._of_agent, self._account.of, self._credential.of,
            self._fingerprint.of, self._model.of,
        )  # fmt: skip
        kept: list[Any] = [lru_cache(maxsize=KEPT)(say) for say in self._plain]
        self._kept = Sayings(*kept)

    def _of_address_text(self, ip: str) -> tuple[int, int]:
        return self._address.of(ip), self._network.of(network_text(ip))

    def _of_path(self, path: str | None) -> PathSays:
        if path is None:  # which no event has
            return 0, 0, (0.0,) * 5
        traits = path_traits(path)
        numbers = (
            float(traits.depth),
            math.log2(1.0 + traits.length),
            *map(float, (traits.query, traits.asset, traits.probe)),
        )
        return self._path.of(path), self._path_template.of(traits.template), numbers

    def _of_agent(self, user_agent: str | None) -> tuple[int, float]:
        key = self._agent.of(normal_agent(user_agent)) if user_agent else 0
        return key, float(agents.agent_class(user_agent))

    def _of_each(self, say: str, texts: list[Any]) -> list[Any]:
        """Return what each of some texts says."""
        kept, plain = getattr(self._kept, say), getattr(self._plain, say)
        return [kept(text) if text is None or len(text) <= LONGEST_KEPT else plain(text) for text in texts]

    # --- many events ---------------------------------------------------------------------------------------------------

    def table(self, events: pa.Table, first_row: int = 0, *, after: Events | None = None) -> Events:
        """Prepare an event table (`events.EVENT_SCHEMA`); its first event is number `first_row` of the input.

        The events `after` which it comes are returned before it, in the same arrays.
        """
        batch = events.combine_chunks()
        column = {
            name: batch.column(name).chunk(0) if batch.num_rows else pa.array([], batch.schema.field(name).type)
            for name in batch.column_names
        }
        n = batch.num_rows
        time = column["time"].to_numpy(zero_copy_only=False).astype(np.int64)
        duration = _numbers(column["duration"])
        end = time + np.rint(np.nan_to_num(duration) * MICROSECONDS).astype(np.int64)
        path_codes, paths = _coded(column["path"])
        agent_codes, user_agents = _coded(column["user_agent"])
        joined, held = Events.room(n, after)
        hashes, values = joined.hashes[held:], joined.values[held:]
        said, software = self._of_each("path", paths), self._of_each("agent", user_agents)
        path_hashes = np.array([says[:2] for says in said], np.uint64)
        agent_hashes = np.array([key for key, _ in software], np.uint64)
        self._hash(column, path_codes, path_hashes, agent_codes, agent_hashes, hashes)
        refused = pc.is_in(column["verdict"], value_set=pa.array(["challenge", "block"]))
        size, limit, age, response_size, status, tokens_in, tokens_out = (
            _numbers(column[name]) for name in (
                "request_bytes", "max_tokens", "account_created", "response_bytes", "status", "input_tokens", "output_tokens",
            )
        )  # fmt: skip
        prompt, cap = _numbers(_prompt_lengths(column)), limit.copy()
        for numbers in (size, cap, prompt, response_size):
            _take_logs(numbers, 1.0, 1.0)
        _take_logs(duration, 0.0, 1e-3)
        _take_ages(time, age)
        _fill_values(
            *text_spans(column["method"]), column["referer"].is_valid().to_numpy(zero_copy_only=False),
            size, limit, cap, age, prompt, self._prompt_scores(column), status, tokens_in, tokens_out, response_size,
            duration, refused.to_numpy(zero_copy_only=False),
            path_codes, np.array([says[2] for says in said]),
            agent_codes, np.array([number for _, number in software]), values,
        )  # fmt: skip
        if "end" in column:
            _recall(column, end, hashes)
        joined.time[held:], joined.end[held:], joined.row[held:] = time, end, np.arange(first_row, first_row + n)
        return joined

    def _hash(self, column: dict[str, pa.Array], path_codes: Any, path_hashes: Any, agent_codes: Any, agent_hashes: Any,
              hashes: npt.NDArray[np.uint64]) -> None:  # fmt: skip
        """Fill the hashes; those of paths and user agents are given by code."""
        data, start, stop = text_spans(column["ip"])
        address = self._address.of_spans(data, start, stop)
        _network_ends(data, start, stop)
        network = self._network.of_spans(data, start, stop)
        others = np.flatnonzero(stop == -2)
        if len(others):
            network[others] = [key for _, key in self._of_each("ip", column["ip"].take(pa.array(others)).to_pylist())]
        _fill_hashes(
            address, network, self._account.of_column(column["account"]), self._credential.of_column(column["credential"]),
            self._fingerprint.of_repeated(column["fingerprint"]), self._model.of_repeated(column["model"]),
            self._templates(column["prompt"]),
            path_codes, path_hashes, agent_codes, agent_hashes, hashes,
        )  # fmt: skip

    def _prompt_scores(self, column: dict[str, pa.Array]) -> Floats:
        """Return the log odds of each prompt, computed or as a journal knows them: float64[n], NaN where there is none."""
        prompts = column["prompt"]
        none = prompts.null_count == len(prompts)
        scores = np.full(len(prompts), np.nan) if none else self.prompts.of_spans(*text_spans(prompts))
        if "prompt_score" not in column:
            return scores
        known = _numbers(column["prompt_score"])
        return np.where(np.isnan(known), scores, known)

    def _templates(self, prompts: pa.Array) -> npt.NDArray[np.uint64]:
        if prompts.null_count == len(prompts):
            return np.zeros(len(prompts), np.uint64)
        return self._prompt.of_spans(*fold_all(*text_spans(prompts)))

    # --- one event -----------------------------------------------------------------------------------------------------

    def arrival(self, event: Event) -> Events:
        """Prepare what is known of one event at its arrival: an `Events` of one row, whose values of the answer are 0.

        Raises ValueError for a time that is none.
        """
        return self.gathered([self.described(event)], [microseconds(event.time)])

    def client_keys(self, client: str) -> tuple[int, int]:
        """Return the hashes that a client has as an account and as an address (0: none)."""
        return self._account.of(client), self._address.of(client)

    def described(self, event: Event) -> Described:
        """Return what `gathered` turns into a row. The time is not read."""
        texts = event.ip, event.path, event.user_agent, event.account, event.credential, event.fingerprint, event.model
        says = self._kept if sum(map(len, filter(None, texts))) <= LONGEST_KEPT else self._plain
        address, network = says.ip(event.ip)
        path, template, path_numbers = says.path(event.path)
        agent, agent_number = says.agent(event.user_agent)
        client, prompt = says.account(event.account) or address, event.prompt
        row = _ROW.pack(
            client, address, network, says.fingerprint(event.fingerprint) or agent, template, path,
            says.model(event.model), says.credential(event.credential),
            _method_number(event.method), event.referer is not None, _or_nan(event.request_bytes), _or_nan(event.max_tokens),
            _or_nan(event.account_created), math.nan if prompt is None else len(prompt), *path_numbers, agent_number,
        )  # fmt: skip
        return client, row, b"" if prompt is None else what_is_read(prompt)

    def gathered(self, described: Sequence[Described], times: Sequence[int]) -> Events:
        """Return events that were `described` and arrive at `times` (µs), one row each; their prompts are read in one call."""
        n, scorer, (_, rows, prompts) = len(described), self.prompts, zip(*described, strict=True)
        if len(times) != n:
            raise ValueError(f"{len(times)} times for {n} events")
        moments, data = np.array(times), np.frombuffer(b"".join(rows + prompts), np.uint8)
        bounds = np.array([*accumulate(map(len, prompts), initial=_ROW.size * n)])
        hashes, values = np.empty((n, at.HASHES), np.uint64), np.empty((n, at.VALUES), np.float32)
        _describe_requests(
            moments, data, bounds, SIPHASH24, self._prompt.key, scorer.weights, scorer.step, scorer.bias, hashes, values
        )
        return Events(moments, moments, hashes, values, np.arange(n))

    def completion(self, values: Values, event: Event) -> None:
        """Add what is known when the response has ended to the values (float32[VALUES]) of the event's arrival."""
        _describe_one_answer(
            values, _or_nan(event.status), _or_nan(event.input_tokens), _or_nan(event.output_tokens),
            _or_nan(event.response_bytes), _or_nan(event.duration), float(event.verdict in ("challenge", "block")),
        )  # fmt: skip


Described = tuple[int, bytes, bytes]
"""An event: hash of its client, hashes and numbers of the request (`_ROW`), and what is yet to be read of its prompt."""

_ROW = Struct(f"{at.HASHES}Q12d")
"""Hashes in the order of `layout`, then method (1 POST, 0 GET, -1 other), referer, size, token limit, when the account was
made, length of the prompt, the five numbers of the path and the class of the agent."""

_METHODS = {"GET": 0.0, "POST": 1.0}


def _method_number(method: str | None) -> float:
    return _METHODS.get(method or "", -1.0)
