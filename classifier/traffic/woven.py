"""A user's own log as a scene: attackers borrow from it what they ask for, how it was answered, and when it is busy.

A request of an attacker is a row of the log (its donor) with the attacker's time, address and identity in it, so that
paths, methods, sizes, tokens and durations keep the log's marginals, and fields that the log lacks stay empty. Only
where the purpose of an act demands it, a status or a path differs: a refused login, a path that is not there.
A mimic repeats all rows of one client of the log.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import EVENT_SCHEMA, MICROSECONDS, UNLABELLED, clients_of
from classifier.traffic import prompts, software
from classifier.traffic.addresses import Origin, beside, random_public
from classifier.traffic.flow import I64, INFERENCE, KEYED, PAGES, Account, Act, Disguise, Flow, Originals
from classifier.traffic.pacing import F64, Clock
from classifier.traffic.pages import BROWSER, DECLARED, LOGIN_PROBES, PROBES, SIGNUP_PROBES, act_of, class_of
from classifier.traffic.software import Software
from classifier.traffic.stamps import Stamps

HOSTING_NETWORKS = 24
"""Networks (/24) that half of all woven hosts and VPN exits lie in."""
DONORS = 200_000
"""Rows of the log that are looked at, at most; of a longer log, half are drawn alone and half with all of a client's."""
FEW = 5
"""Rows that a client of the log has to have so that an attacker takes after it, where there are such clients."""


class WovenScene:
    """The log as attackers see it: what there is to ask for, who comes, and when.

    It is a `Scene`; `render` turns flows into events of the log's own kind.
    """

    def __init__(self, events: pa.Table, rng: np.random.Generator):
        time = events["time"].to_numpy()
        self.start = float(time.min()) / MICROSECONDS
        self.span = max(float(time.max()) / MICROSECONDS - self.start, 1.0)
        self._stamps = Stamps(time)
        self.clock = _clock(time / MICROSECONDS - self.start, self.span)
        self._taken = set(pc.unique(events["ip"]).to_pylist())
        self._hosting = [random_public(rng).rpartition(".")[0] for _ in range(HOSTING_NETWORKS)]
        rows, clients = _sampled(events, rng)
        self._log = events.take(pa.array(rows)).combine_chunks()
        self._seconds = self._log["time"].to_numpy() / MICROSECONDS - self.start
        self._has = {name for name in EVENT_SCHEMA.names if events[name].null_count < events.num_rows}
        paths = self._log["path"].to_numpy(zero_copy_only=False)
        self._kinds = self._kinds_of(paths)
        self._rows = self._sort_rows()
        self._parts: dict[tuple[bool, Act, str], tuple[I64, I64, I64]] = {}
        self._large: dict[str, I64] = {}
        self._members = _members(clients)
        client = clients_of(self._log).combine_chunks().dictionary_encode()
        self._clients = client.indices.to_numpy().astype(np.int64)
        self.web = len(self._rows[Act.CHAT]) < 0.01 * len(paths)
        self._paths = paths
        self._networks = sorted({".".join(ip.split(".")[:2]) for ip in self._taken if ip.count(".") == 3})

    def addresses(self, rng: np.random.Generator, n: int, origin: Origin) -> list[str]:
        """Draw n addresses that the log does not have: half in its /16 networks, half from anywhere.

        Hosts and VPN exits are rented in blocks: half of theirs lie in a few /24 networks.
        """
        found: dict[str, None] = {}
        while len(found) < n:
            address = random_public(rng)
            if origin in ("datacenter", "vpn") and rng.random() < 0.5:
                block = self._hosting[int(rng.integers(len(self._hosting)))]
                address = f"{block}.{address.rpartition('.')[2]}"
            elif self._networks and rng.random() < 0.5:
                near = self._networks[int(rng.integers(len(self._networks)))]
                address = ".".join((near, *address.split(".")[2:]))
            if address not in self._taken:
                found[address] = None
        return list(found)

    def beside(self, rng: np.random.Generator, address: str, used: Collection[str]) -> str:
        """Draw an address that the log does not have and is not in `used`, in the network of one that it has."""
        return beside(rng, address, self._taken, used)

    def shows(self, field: str) -> bool:
        """Say whether a field has a value anywhere in the log."""
        return field in self._has

    def models(self, rng: np.random.Generator, n: int) -> list[str]:
        """Draw n of the log's models, in turn from any of them on."""
        names = self._models
        first = int(rng.integers(len(names)))
        return [names[(first + i) % len(names)] for i in range(n)]

    def originals(self) -> Originals:
        """Return the legitimate clients of the log."""
        return self._originals

    def original(self, number: int) -> list[Flow]:
        """Return the rows of a legitimate client of the log as a flow."""
        rows = self._members[number]
        taken = {name: self._log[name].take(pa.array(rows)).to_pylist() for name in _IDENTITY}
        runs = [Software(class_of(agent), agent, mark)
                for agent, mark in zip(taken["user_agent"], taken["fingerprint"], strict=True)]  # fmt: skip
        account = None
        if taken["account"][0] is not None:
            created = next((moment for moment in taken["account_created"] if moment is not None), self.start)
            account = Account(taken["account"][0], created)
        shown = [text or "" for text in taken["credential"]]
        return [
            Flow(
                family=UNLABELLED, malicious=False, times=self._seconds[rows], acts=self._kinds[rows], address=taken["ip"],
                software=runs, account=account, credential=shown if any(shown) else None, repeats=rows,
            )
        ]  # fmt: skip

    def software(self, rng: np.random.Generator, disguise: Disguise) -> Software:
        """Draw a user agent and fingerprint of the log: a browser's, a declared crawler's, or one of what is neither."""
        if disguise == "tool" and rng.random() < 0.35:  # scanners bring their own, or another's old name
            disguise = "browser"
        pool = self._agents[disguise if disguise in ("browser", "crawler") else "tool"]
        if not pool:
            pool = self._agents["any"]
        if not pool:
            return Software("tool", None, None)
        agent, fingerprint = pool[int(rng.integers(len(pool)))]
        return Software(disguise, agent, fingerprint)

    def account(self, rng: np.random.Generator, created: float) -> Account:
        """Make an account whose id has the length of the log's."""
        return Account(rng.bytes(32).hex()[: self._account_length], round(self.start + created, 3))

    def moments(self, rng: np.random.Generator, n: int, low: float, high: float) -> F64:
        """Draw n moments in [low, high), as dense as the log is in each hour; sorted."""
        return self.clock.draw(rng, n, low, high)

    def render(self, flow: Flow, rng: np.random.Generator) -> pa.Table:
        """Return the events of a flow, unsorted, with only those fields that the log has."""
        flow = flow.within(self.span)
        n = len(flow)
        donors = self._donors(flow, rng)
        columns: dict[str, Any] = {name: self._log[name].take(pa.array(donors)) for name in _BORROWED}
        columns |= self._identity(flow, donors, rng)
        columns |= self._purpose(flow, columns, rng)
        if flow.hold is not None:
            columns["duration"] = _floats(columns["duration"]) + flow.hold
        if flow.model is not None and not isinstance(flow.model, str):
            columns["model"] = _or_else(flow.model, columns["model"])
        columns["time"] = self._stamps.fit(np.rint((self.start + flow.times) * MICROSECONDS).astype(np.int64), rng)
        columns["verdict"] = np.full(n, "allow", object) if self._enforces else None
        columns["malicious"], columns["family"] = np.full(n, flow.malicious), np.full(n, flow.family, object)
        labels = ("malicious", "family")
        kept = {name: columns[name] if name in self._has or name in labels else None for name in EVENT_SCHEMA.names}
        return pa.table({field.name: _column(kept[field.name], field, n) for field in EVENT_SCHEMA})

    def _kinds_of(self, paths: Any) -> npt.NDArray[np.int8]:
        """Return the act that each row of the log is taken for, int8[n]."""
        unique, inverse = np.unique(paths.astype(str), return_inverse=True)
        kinds = np.array([act_of(path) for path in unique], np.int8)[inverse]
        for name in ("model", "input_tokens", "output_tokens"):
            kinds[~self._log[name].is_null().to_numpy(zero_copy_only=False)] = Act.CHAT
        return np.asarray(kinds, np.int8)

    def _sort_rows(self) -> dict[Act, I64]:
        """Return which rows of the log can stand for each act."""
        kinds = self._kinds
        missing = self._numbers("status") == 404
        rows = {act: np.flatnonzero(kinds == act) for act in (Act.ASSET, Act.LOGIN, Act.SIGNUP, Act.CHAT)}
        pages = np.flatnonzero((kinds == Act.DOCS) & ~missing)
        everything = np.arange(len(kinds))
        rows[Act.DOCS] = pages if len(pages) else everything
        rows[Act.PROBE] = np.flatnonzero(missing)
        return rows

    def _donors(self, flow: Flow, rng: np.random.Generator) -> I64:
        """Choose the row of the log that each request is made after."""
        n = len(flow)
        donors = np.empty(n, np.int64) if flow.repeats is None else flow.repeats.copy()
        drawn = np.ones(n, np.bool_) if flow.repeats is None else self._kinds[flow.repeats] != flow.acts
        for act in np.unique(flow.acts[drawn]):
            rows = np.flatnonzero(drawn & (flow.acts == act))
            pool = self._pool(Act(act), flow)
            if flow.focus is not None and act not in (Act.PROBE, Act.ASSET):
                seed, few = flow.focus
                picked = np.random.default_rng([seed, int(act)]).integers(0, len(pool), few)
                pool = pool[picked]
            if flow.systematic and self.web:
                pool = self._in_order(pool)
                first = int(rng.integers(len(pool)))
                donors[rows] = pool[(first + np.arange(len(rows))) % len(pool)]
            elif flow.focus is None:
                own = self._rows_of_one(Act(act), flow, pool, len(rows), rng)
                donors[rows] = own[(int(rng.integers(len(own))) + np.arange(len(rows))) % len(own)]
            else:
                donors[rows] = pool[rng.integers(0, len(pool), len(rows))]
        return donors

    def _rows_of_one(self, act: Act, flow: Flow, pool: I64, n: int, rng: np.random.Generator) -> I64:
        """Return the rows of the pool that one client sent: whoever sends n requests does not change with each of them.

        It is drawn among the clients that have a few rows there, if any has.
        """
        key = (act in INFERENCE, act, flow.appetite)
        if key not in self._parts:
            order = pool[np.argsort(self._clients[pool], kind="stable")]
            _, first, several = np.unique(self._clients[order], return_index=True, return_counts=True)
            self._parts[key] = (order, first, several)
        order, first, several = self._parts[key]
        able = np.flatnonzero(several >= min(FEW, n, int(several.max())))
        one = int(able[int(rng.integers(len(able)))])
        return order[first[one] : first[one] + several[one]]

    def _pool(self, act: Act, flow: Flow) -> I64:
        if self.web and act in (*INFERENCE, *PAGES) and flow.focus is None and not flow.systematic:
            return self._loaded
        if act in INFERENCE:
            if self.web:
                return self._rows[Act.DOCS]
            if flow.appetite in ("long", "huge"):
                return self._largest("output_tokens" if flow.appetite == "long" else "input_tokens")
            return self._rows[Act.CHAT]
        pool = self._rows.get(act, self._rows[Act.DOCS])
        return pool if len(pool) else self._rows[Act.DOCS]

    @cached_property
    def _loaded(self) -> I64:
        """What somebody loads who looks at pages: the pages, what belongs to them, and what is missing."""
        rows = np.flatnonzero((self._kinds == Act.DOCS) | (self._kinds == Act.ASSET))
        return rows if len(rows) else self._rows[Act.DOCS]

    def _largest(self, name: str) -> I64:
        """Return the inference rows with the largest quarter of a token count, or all where it is not known."""
        if name not in self._large:
            rows = self._rows[Act.CHAT]
            given = self._numbers(name)[rows]
            known = ~np.isnan(given)
            enough = int(known.sum()) >= 20
            self._large[name] = rows[known & (given >= np.nanquantile(given, 0.75))] if enough else rows
        return self._large[name]

    def _in_order(self, pool: I64) -> I64:
        """Return one row for each path of the pool, sorted by path: the order of somebody who takes everything."""
        _, first = np.unique(self._paths[pool].astype(str), return_index=True)
        return pool[first]

    def _identity(self, flow: Flow, donors: I64, rng: np.random.Generator) -> dict[str, Any]:
        n = len(flow)
        runs = [flow.software] * n if isinstance(flow.software, Software) else list(flow.software)
        keyed = np.isin(flow.acts, KEYED)
        if flow.repeats is not None:  # the log says which of its requests carry an account
            keyed |= self._given("account", donors)
        shown = (keyed & (flow.account is None)) | (flow.acts == Act.LOGIN)
        keyed &= flow.account is not None
        account = flow.account or Account("", 0.0)
        credentials = flow.credential or [""] * n
        shown &= np.array([bool(text) for text in credentials], np.bool_)
        return {
            "ip": [flow.address] * n if isinstance(flow.address, str) else list(flow.address),
            "user_agent": [s.user_agent for s in runs],
            "fingerprint": [s.fingerprint for s in runs],
            "account": pa.array(np.full(n, account.id, object), pa.string(), mask=~keyed),
            "account_created": pa.array(np.full(n, account.created), mask=~keyed),
            "credential": pa.array(np.array(credentials, object), pa.string(), mask=~shown),
            "prompt": self._prompts(flow, donors, rng),
            "referer": self._referers(flow, donors, rng),
        }

    def _given(self, name: str, rows: I64) -> npt.NDArray[np.bool_]:
        return np.asarray(self._log[name].is_valid().to_numpy(zero_copy_only=False)[rows], np.bool_)

    def _prompts(self, flow: Flow, donors: I64, rng: np.random.Generator) -> Any:
        asking = np.isin(flow.acts, INFERENCE)
        if "prompt" not in self._has or not asking.any():
            return None
        texts: Any = [None] * len(flow) if flow.prompts is None else flow.prompts
        if flow.repeats is not None:
            own = self._log["prompt"].take(pa.array(donors))
            return pa.array(_or_else(texts, own), pa.string(), mask=~asking)
        if flow.prompts is None:
            texts = prompts.wordings(rng, "ask", len(flow))
        return pa.array(np.array(texts, object), pa.string(), mask=~asking)

    def _referers(self, flow: Flow, donors: I64, rng: np.random.Generator) -> Any:
        """Invent where the requests claim to come from: nowhere, one page for all, or any of the log's."""
        if flow.repeats is not None:
            return self._log["referer"].take(pa.array(donors))
        posing = isinstance(flow.software, Software) and flow.software.kind == "browser"
        if self.web and posing and flow.referers != "fake":
            return self._log["referer"].take(pa.array(donors))
        if flow.referers == "none" or not len(self._known_referers):
            return None
        known = self._known_referers
        picked = known[rng.integers(0, len(known), len(flow))]
        if flow.referers == "fake" and rng.random() < 0.5:
            picked[:] = picked[0]
        absent = 0.3 if flow.referers == "fake" else self._without_referer
        return pa.array(picked, pa.string(), mask=rng.random(len(flow)) < absent)

    def _purpose(self, flow: Flow, columns: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return path, method, status and response size where what the request is for decides them."""
        n = len(flow)
        path = columns["path"].to_numpy(zero_copy_only=False).copy()
        method = columns["method"].to_numpy(zero_copy_only=False).copy()
        status = _floats(columns["status"])
        size = _floats(columns["response_bytes"])
        strange = np.zeros(n, np.bool_)
        for act, invented in ((Act.LOGIN, LOGIN_PROBES), (Act.SIGNUP, SIGNUP_PROBES), (Act.PROBE, PROBES)):
            rows = np.flatnonzero(flow.acts == act)
            if not len(rows) or (act != Act.PROBE and len(self._rows[act])):
                continue
            few = invented if act == Act.PROBE else (invented[int(rng.integers(len(invented)))],)
            own = rng.random(len(rows)) < (0.25 if act == Act.PROBE and len(self._rows[Act.PROBE]) else 0.0)
            rows = rows[~own]
            path[rows] = np.array(few, object)[rng.integers(0, len(few), len(rows))]
            method[rows] = "POST" if act != Act.PROBE and rng.random() < 0.5 else "GET"
            strange[rows] = True
        if "HEAD" in self._methods and rng.random() < 0.15:
            method[flow.acts == Act.PROBE] = "HEAD"
        elif "POST" in self._methods and rng.random() < 0.15:
            method[(flow.acts == Act.PROBE) & (rng.random(n) < 0.5)] = "POST"
        refused = np.isin(flow.acts, (Act.LOGIN, Act.SIGNUP)) & (rng.random(n) >= flow.success)
        if flow.account is None and not self.web:
            refused |= np.isin(flow.acts, KEYED) & (rng.random(n) >= flow.success)
        wall = float(rng.choice((401, 403, 404)))
        status[refused] = 401 if not self.web else wall
        status[strange & ~refused] = 404
        status[(flow.acts == Act.PROBE) & (rng.random(n) < 0.06)] = float(rng.choice((301, 302, 403)))
        denied = refused | (strange & (status >= 300))
        size[denied] = self._error_sizes[rng.integers(0, len(self._error_sizes), int(denied.sum()))]
        changed: dict[str, Any] = {"path": path, "method": method, "status": status, "response_bytes": size}
        for name in ("input_tokens", "output_tokens"):
            used = _floats(columns[name])
            used[denied] = np.nan
            changed[name] = used
        return changed

    def _numbers(self, name: str) -> F64:
        return _floats(self._log[name])

    @cached_property
    def _error_sizes(self) -> F64:
        sizes = self._numbers("response_bytes")[self._numbers("status") >= 400]
        return sizes if len(sizes) else np.array([0.0])

    @cached_property
    def _methods(self) -> set[str]:
        return set(self._log["method"].unique().to_pylist())

    @cached_property
    def _enforces(self) -> bool:
        return "allow" in self._log["verdict"].unique().to_pylist()

    @cached_property
    def _account_length(self) -> int:
        lengths = pc.utf8_length(self._log["account"].drop_null())
        return int(np.clip(pc.max(lengths).as_py() or 20, 12, 64)) if len(lengths) else 20

    @cached_property
    def _models(self) -> list[str]:
        return sorted(pc.unique(self._log["model"].drop_null()).to_pylist()) or ["model"]

    @cached_property
    def _originals(self) -> Originals:
        tokens = np.nan_to_num(self._numbers("input_tokens"))
        refused = np.isin(self._numbers("status"), (401, 403)) & np.isin(self._kinds, INFERENCE)
        counts = [np.bincount(self._kinds[rows[~refused[rows]]], minlength=len(Act)) for rows in self._members]
        return Originals(
            np.array(counts, np.int64).reshape(-1, len(Act)),
            np.array([float(tokens[rows].sum()) for rows in self._members]),
            np.array([float(self._seconds[rows].min()) for rows in self._members]),
        )

    @cached_property
    def _without_referer(self) -> float:
        """How often the log's browsers send no referer."""
        browsers = self._browsing
        given = self._given("referer", browsers) if len(browsers) else self._given("referer", np.arange(len(self._log)))
        return float(1.0 - given.mean())

    @cached_property
    def _browsing(self) -> I64:
        agents = self._log["user_agent"].to_pylist()
        known = {agent for agent in set(agents) if class_of(agent) == "browser"}
        return np.flatnonzero(np.array([agent in known for agent in agents], np.bool_))

    @cached_property
    def _known_referers(self) -> Any:
        return self._log["referer"].drop_null().to_numpy(zero_copy_only=False)

    @cached_property
    def _agents(self) -> dict[str, list[tuple[str | None, str | None]]]:
        """The log's pairs of user agent and fingerprint, each once for each address that sent it (every one counts)."""
        seen = self._log.select(["ip", "user_agent", "fingerprint"]).group_by(["ip", "user_agent", "fingerprint"])
        found = seen.aggregate([]).sort_by([("user_agent", "ascending"), ("ip", "ascending")])
        pairs = list(zip(found["user_agent"].to_pylist(), found["fingerprint"].to_pylist(), strict=True))
        plain = [p for p in pairs if p[0] is None or not DECLARED.search(p[0])]
        browsers = [p for p in plain if p[0] is not None and BROWSER.search(p[0])]
        tools = [p for p in plain if p[0] is None or not BROWSER.search(p[0])]
        declared = [p for p in pairs if p[0] is not None and DECLARED.search(p[0])]
        if "user_agent" in self._has and len({p[0] for p in tools}) < 3:
            known = [(s.user_agent, s.fingerprint) for s in software.TOOLS]
            tools = [*tools, *(known if "fingerprint" in self._has else [(agent, None) for agent, _ in known])]
        return {"browser": browsers, "tool": tools, "crawler": declared, "any": pairs}


_BORROWED = ("path", "method", "status", "duration", "request_bytes", "response_bytes", "model", "max_tokens",
             "input_tokens", "output_tokens")  # fmt: skip
_IDENTITY = ("ip", "user_agent", "fingerprint", "account", "account_created", "credential")


def _sampled(events: pa.Table, rng: np.random.Generator) -> tuple[I64, I64]:
    """Return the rows of a log that are looked at, and for each the number of its client (-1: not to be replayed)."""
    client = clients_of(events).combine_chunks().dictionary_encode()
    codes = client.indices.to_numpy().astype(np.int64)
    codes[pc.fill_null(events["malicious"], False).to_numpy()] = -1
    rows = np.arange(len(codes))
    if len(rows) <= DONORS:
        return rows, codes
    alone = rng.choice(rows, DONORS // 2, replace=False)
    order = rng.permutation(len(client.dictionary))
    sizes = np.bincount(codes[codes >= 0], minlength=len(order))[order]
    whole = order[np.cumsum(sizes) <= DONORS // 2]
    together = np.isin(codes, whole)
    rows = np.unique(np.concatenate((alone, np.flatnonzero(together))))
    return rows, np.where(together[rows], codes[rows], -1)


def _members(clients: I64) -> list[I64]:
    """Return the rows of each client that may be replayed."""
    order = np.argsort(clients, kind="stable")
    order = order[clients[order] >= 0]
    _, first = np.unique(clients[order], return_index=True)
    return np.split(order, first[1:]) if len(order) else []


def _or_else(values: Any, others: Any) -> Any:
    """Return the values, and where there is none, that of `others` (an Arrow array)."""
    return [other if value is None else value for value, other in zip(values, others.to_pylist(), strict=True)]


def _clock(seconds: F64, span: float) -> Clock:
    """Return the log's own hourly shape, smoothed by one request an hour."""
    edges = np.linspace(0.0, span, int(np.clip(span / 3600, 1, 5000)) + 1)
    counts, _ = np.histogram(seconds, edges)
    return Clock(edges, counts + 0.02 * counts.mean() + 1e-9)


def _floats(values: Any) -> F64:
    """Return a numeric column as float64 with NaN for null, writable."""
    return np.array(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _column(values: Any, field: pa.Field, n: int) -> Any:
    if values is None:
        return pa.nulls(n, field.type)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(field.type)
    return pa.array(values, from_pandas=True).cast(field.type)
