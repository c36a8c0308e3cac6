"""A user's own log as a scene: attackers borrow from it what they ask for, how it was answered, and when it is busy.

A request of an attacker is a row of the log (its donor) with the attacker's time, address and identity in it, so that
paths, methods, sizes, tokens and durations keep the log's marginals, and fields that the log lacks stay empty. Only
where the purpose of an act demands it, a status or a path differs: a refused login, a path that is not there.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.traffic import prompts, software
from classifier.traffic.addresses import Origin, random_public
from classifier.traffic.flow import INFERENCE, KEYED, Account, Act, Disguise, Flow
from classifier.traffic.pacing import F64, Clock
from classifier.traffic.software import Software

I64 = npt.NDArray[np.int64]
HOSTING_NETWORKS = 24
"""Networks (/24) that half of all woven hosts and VPN exits lie in."""
DONORS = 200_000
"""Rows of the log that are looked at, at most; a longer log is sampled evenly."""
_ASSET = re.compile(r"\.(css|js|mjs|png|jpe?g|gif|ico|svg|webp|avif|woff2?|ttf|eot|map|mp4|webm)(\?|$)", re.I)
_LOGIN = re.compile(r"log-?in|sign-?in|/auth|/session|xmlrpc|/token|/oauth", re.I)
_SIGNUP = re.compile(r"regist|sign-?up|create-?account|/join\b|/users?$", re.I)
_INFERENCE = re.compile(r"/(chat/completions|completions|embeddings|responses|messages|generate)\b")
_BROWSER = re.compile(r"^Mozilla/[45]\.0 \((?!compatible[;,])")
_DECLARED = re.compile(r"bot\b|crawl|spider|slurp|https?://|feed|[\w.]@[\w-]+\.\w", re.I)
"""A user agent that says what it is, or where its owner can be reached."""
_LOGIN_PROBES: Final = ("/wp-login.php", "/xmlrpc.php", "/administrator/index.php", "/admin/login", "/user/login")
_SIGNUP_PROBES: Final = ("/wp-login.php?action=register", "/register", "/user/register", "/signup", "/index.php?do=reg")
_PROBES: Final = tuple(
    "/.env /.git/config /phpmyadmin/index.php /admin/ /backup.zip /backup.sql /wp-content/plugins/ /config.php.bak "
    "/old/ /test.php /cgi-bin/test.cgi /server-status /api/v1/users /w00tw00t.at.isc.sans.dfind /wp-login.php "
    "/administrator/ /db.sql /robots.txt.bak /shell.php /manager/html /HNAP1 /setup.php /data/admin/config.txt "
    "/.aws/credentials /.git/HEAD /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php /solr/admin/info/system "
    "/index.php?option=com_users&task=registration /xmlrpc.php /fckeditor/editor/filemanager/upload/test.html "
    "/actuator/health /api/jsonws/invoke /login.action /user/register /uploads/shell.php /up.php /1.php".split()
)


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
        rows = np.arange(events.num_rows)
        if len(rows) > DONORS:
            rows = np.sort(rng.choice(rows, DONORS, replace=False))
        self._log = events.take(pa.array(rows)).combine_chunks()
        self._has = {name for name in EVENT_SCHEMA.names if events[name].null_count < events.num_rows}
        paths = self._log["path"].to_numpy(zero_copy_only=False)
        self._rows = self._sort_rows(paths)
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

    def software(self, rng: np.random.Generator, disguise: Disguise) -> Software:
        """Draw a user agent and fingerprint of the log: a browser's, or one of what is none and does not say so."""
        if disguise == "tool" and rng.random() < 0.35:  # scanners bring their own, or another's old name
            disguise = "browser"
        pool = self._agents["browser" if disguise == "browser" else "tool"]
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
        columns |= self._identity(flow, rng)
        columns |= self._purpose(flow, columns, rng)
        columns["time"] = self._stamps.fit(np.rint((self.start + flow.times) * MICROSECONDS).astype(np.int64), rng)
        columns["verdict"] = np.full(n, "allow", object) if self._enforces else None
        columns["malicious"], columns["family"] = np.full(n, flow.malicious), np.full(n, flow.family, object)
        labels = ("malicious", "family")
        kept = {name: columns[name] if name in self._has or name in labels else None for name in EVENT_SCHEMA.names}
        return pa.table({field.name: _column(kept[field.name], field, n) for field in EVENT_SCHEMA})

    def _sort_rows(self, paths: Any) -> dict[Act, I64]:
        """Return which rows of the log can stand for each act."""
        unique, inverse = np.unique(paths.astype(str), return_inverse=True)
        kinds = np.array([_kind(path) for path in unique], np.int8)[inverse]
        for name in ("model", "input_tokens", "output_tokens"):
            kinds[~self._log[name].is_null().to_numpy(zero_copy_only=False)] = Act.CHAT
        missing = self._numbers("status") == 404
        rows = {act: np.flatnonzero(kinds == act) for act in (Act.ASSET, Act.LOGIN, Act.SIGNUP, Act.CHAT)}
        pages = np.flatnonzero((kinds == Act.DOCS) & ~missing)
        everything = np.arange(len(paths))
        rows[Act.DOCS] = pages if len(pages) else everything
        rows[Act.PROBE] = np.flatnonzero(missing)
        return rows

    def _donors(self, flow: Flow, rng: np.random.Generator) -> I64:
        """Choose the row of the log that each request is made after."""
        n = len(flow)
        donors = np.empty(n, np.int64)
        for act in np.unique(flow.acts):
            rows = np.flatnonzero(flow.acts == act)
            pool = self._pool(Act(act), flow)
            if flow.focus is not None and act not in (Act.PROBE, Act.ASSET):
                seed, few = flow.focus
                picked = np.random.default_rng([seed, int(act)]).integers(0, len(pool), few)
                pool = pool[picked]
            if flow.systematic and self.web:
                pool = self._in_order(pool)
                first = int(rng.integers(len(pool)))
                donors[rows] = pool[(first + np.arange(len(rows))) % len(pool)]
            else:
                donors[rows] = pool[rng.integers(0, len(pool), len(rows))]
        return donors

    def _pool(self, act: Act, flow: Flow) -> I64:
        if act in INFERENCE:
            if self.web:
                return self._rows[Act.DOCS]
            return self._long if flow.appetite == "long" else self._rows[Act.CHAT]
        pool = self._rows.get(act, self._rows[Act.DOCS])
        return pool if len(pool) else self._rows[Act.DOCS]

    @cached_property
    def _long(self) -> I64:
        """The inference rows with the longest quarter of answers, or all where lengths are not known."""
        rows = self._rows[Act.CHAT]
        given = self._numbers("output_tokens")[rows]
        known = rows[~np.isnan(given)]
        if len(known) < 20:
            return rows
        return known[self._numbers("output_tokens")[known] >= np.nanquantile(given, 0.75)]

    def _in_order(self, pool: I64) -> I64:
        """Return one row for each path of the pool, sorted by path: the order of somebody who takes everything."""
        _, first = np.unique(self._paths[pool].astype(str), return_index=True)
        return pool[first]

    def _identity(self, flow: Flow, rng: np.random.Generator) -> dict[str, Any]:
        n = len(flow)
        runs = [flow.software] * n if isinstance(flow.software, Software) else list(flow.software)
        keyed = np.isin(flow.acts, KEYED) & (flow.account is not None)
        account = flow.account or Account("", 0.0)
        shown = (np.isin(flow.acts, KEYED) & (flow.account is None)) | (flow.acts == Act.LOGIN)
        credentials = flow.credential or [""] * n
        return {
            "ip": [flow.address] * n if isinstance(flow.address, str) else list(flow.address),
            "user_agent": [s.user_agent for s in runs],
            "fingerprint": [s.fingerprint for s in runs],
            "account": pa.array(np.full(n, account.id, object), pa.string(), mask=~keyed),
            "account_created": pa.array(np.full(n, account.created), mask=~keyed),
            "credential": pa.array(np.array(credentials, object), pa.string(), mask=~shown | (flow.credential is None)),
            "prompt": self._prompts(flow, rng),
            "referer": self._referers(flow, rng),
        }

    def _prompts(self, flow: Flow, rng: np.random.Generator) -> Any:
        asking = np.isin(flow.acts, INFERENCE)
        if "prompt" not in self._has or not asking.any():
            return None
        texts = prompts.wordings(rng, "ask", len(flow)) if flow.prompts is None else flow.prompts
        return pa.array(np.array(texts, object), pa.string(), mask=~asking)

    def _referers(self, flow: Flow, rng: np.random.Generator) -> Any:
        """Invent where the requests claim to come from: nowhere, one page for all, or any of the log's."""
        if flow.referers == "none" or not len(self._known_referers):
            return None
        known = self._known_referers
        picked = known[rng.integers(0, len(known), len(flow))]
        if flow.referers == "fake" and rng.random() < 0.5:
            picked[:] = picked[0]
        return pa.array(picked, pa.string(), mask=rng.random(len(flow)) < 0.3)

    def _purpose(self, flow: Flow, columns: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return path, method, status and response size where what the request is for decides them."""
        n = len(flow)
        path = columns["path"].to_numpy(zero_copy_only=False).copy()
        method = columns["method"].to_numpy(zero_copy_only=False).copy()
        status = _floats(columns["status"])
        size = _floats(columns["response_bytes"])
        strange = np.zeros(n, np.bool_)
        for act, invented in ((Act.LOGIN, _LOGIN_PROBES), (Act.SIGNUP, _SIGNUP_PROBES), (Act.PROBE, _PROBES)):
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
    def _known_referers(self) -> Any:
        return self._log["referer"].drop_null().to_numpy(zero_copy_only=False)

    @cached_property
    def _agents(self) -> dict[str, list[tuple[str | None, str | None]]]:
        """The log's pairs of user agent and fingerprint, each once for each address that sent it (every one counts)."""
        seen = self._log.select(["ip", "user_agent", "fingerprint"]).group_by(["ip", "user_agent", "fingerprint"])
        found = seen.aggregate([]).sort_by([("user_agent", "ascending"), ("ip", "ascending")])
        pairs = list(zip(found["user_agent"].to_pylist(), found["fingerprint"].to_pylist(), strict=True))
        plain = [p for p in pairs if p[0] is None or not _DECLARED.search(p[0])]
        browsers = [p for p in plain if p[0] is not None and _BROWSER.search(p[0])]
        tools = [p for p in plain if p[0] is None or not _BROWSER.search(p[0])]
        if "user_agent" in self._has and len({p[0] for p in tools}) < 3:
            known = [(s.user_agent, s.fingerprint) for s in software.TOOLS]
            tools = [*tools, *(known if "fingerprint" in self._has else [(agent, None) for agent, _ in known])]
        return {"browser": browsers, "tool": tools, "any": pairs}


_BORROWED = ("path", "method", "status", "duration", "request_bytes", "response_bytes", "model", "max_tokens",
             "input_tokens", "output_tokens")  # fmt: skip


_MINUTE: Final = 60 * MICROSECONDS
SHUFFLED = 0.3
"""Share of lines stamped before the line above them from which a log that lost its minutes lost its seconds, too."""


class Stamps:
    """How a log stamps time: to the second or finer, at which minutes of the hour, and whether seconds mean anything.

    time int64[n], µs, in the order of the log's lines.
    """

    def __init__(self, time: I64):
        self._step = next((step for step in (MICROSECONDS, 1000, 1) if not np.any(time % step)), 1)
        minutes = np.unique(time // _MINUTE % 60)
        odd = len(time) >= 200 and len(minutes) <= 30 and int(np.ptp(time)) > 3 * 3600 * MICROSECONDS
        # Some published logs lost their minutes (every line at the fifth): attackers between them would stand out.
        self._minutes = minutes if odd else None
        # And their seconds: half of the lines stand before the one above them, where a server writes nearly in order.
        # Attackers with true seconds would be told by their pace, which nobody else in such a log has.
        self._shuffled = odd and float(np.mean(np.diff(time) < 0)) > SHUFFLED
        self._low, self._high = int(time.min()), int(time.max())

    def fit(self, time: I64, rng: np.random.Generator) -> I64:
        """Return times as this log would have stamped them."""
        if self._shuffled:
            time = time - time % _MINUTE + rng.integers(0, _MINUTE, len(time))
        fitted = time // self._step * self._step
        if self._minutes is not None:
            minute = fitted // _MINUTE % 60
            nearest = np.abs(self._minutes[None, :] - minute[:, None]).argmin(axis=1)
            fitted = fitted + (self._minutes[nearest] - minute) * _MINUTE
        return np.clip(fitted, self._low, self._high)


def _clock(seconds: F64, span: float) -> Clock:
    """Return the log's own hourly shape, smoothed by one request an hour."""
    edges = np.linspace(0.0, span, int(np.clip(span / 3600, 1, 5000)) + 1)
    counts, _ = np.histogram(seconds, edges)
    return Clock(edges, counts + 0.02 * counts.mean() + 1e-9)


def _kind(path: str) -> Act:
    if _INFERENCE.search(path):
        return Act.CHAT
    if _ASSET.search(path):
        return Act.ASSET
    if _SIGNUP.search(path):
        return Act.SIGNUP
    return Act.LOGIN if _LOGIN.search(path) else Act.DOCS


def _floats(values: Any) -> F64:
    """Return a numeric column as float64 with NaN for null, writable."""
    return np.array(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _column(values: Any, field: pa.Field, n: int) -> Any:
    if values is None:
        return pa.nulls(n, field.type)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(field.type)
    return pa.array(values, from_pandas=True).cast(field.type)
