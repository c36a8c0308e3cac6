"""`ANY /v1/authorize/{path}`: what gateways ask that know a status and headers, and nothing else.

nginx `auth_request`, Traefik and Caddy forward auth, Envoy ext_authz over HTTP. The answer's status says what is enforced: 200,
401, 403. Anything that is the gateway's mistake or the service's failure is a 500, so that the gateway's own fail mode acts.

Forwarded headers are read only from peers within `trusted_proxies`, which is empty unless configured, and only those of the
configured gateway: others may come from the client itself.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from classifier.logs.address import client_address, without_port
from serving.access import Access, HeaderList, only
from serving.batching import Batcher
from serving.challenge import WAITING
from serving.gate import Answer, Gate, Live, LiveEvent, Rejected, Tallies
from serving.hot import LOAD_HEADER, PASS_HEADER, load_of
from serving.metrics import Metrics
from serving.passes import COOKIE
from serving.problems import PROBLEM, Headers, Problem, Receive, Scope, Send, refuse, respond
from serving.settings import Settings

PREFIX = "/v1/authorize"
TOKEN_HEADER = b"x-botsieve-token"
STATUS = {"allow": 200, "challenge": 401, "block": 403}
_SAY = {
    401: ("challenge", "Solve the challenge of this request, then send it again with the pass that this earns."),
    403: ("blocked", "This request is blocked: it looks like an attack."),
}


class Forwarded:
    """Reads the client's request out of a gateway's call."""

    def __init__(self, settings: Settings, secret: bytes, tallies: Tallies) -> None:
        self._tallies = tallies
        self._names, self._address_header = settings.names, settings.names.address.encode()
        self._account, self._created = settings.account_header.lower(), settings.account_created_header.lower()
        self._fingerprint = settings.fingerprint_header.lower()
        self._networks = [ip_network(network) for network in settings.trusted_proxies]
        self._events_time = settings.clock == "event"
        self._key = blake2b(b"credential of a header", key=secret[:64]).digest()
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    def event(self, scope: Scope) -> LiveEvent:
        """Return the event. Raises Problem 500 when a trusted gateway does not say who the client is."""
        headers: HeaderList = scope["headers"]
        peer = _peer(scope)
        trusted = self.trusts(peer)
        names = self._names
        event = LiveEvent(ip=peer or "unknown", method=scope["method"], path=_own_path(scope))
        if self._events_time:
            event.time = self.time(headers)
        if not trusted:
            self._tallies.unbelieved += any(name == self._address_header for name, _ in headers)
            event.user_agent, event.referer = text_of(headers, "user-agent"), text_of(headers, "referer")
            event.credential = self._credential(headers)
            return event
        event.ip = self._address(headers)
        self.describe(event, headers)
        event.method = (text_of(headers, names.method) if names.method else event.method) or event.method
        uri = text_of(headers, names.uri) if names.uri else None
        if uri is not None:
            event.path = _path_of(uri)
        length = text_of(headers, names.length) if names.length else None
        event.request_bytes = size_of(length)
        return event

    def load(self, scope: Scope) -> float | None:
        """Return how loaded a trusted gateway says it is; None where it says nothing, or what is no number from 0 to 1."""
        given = only(scope["headers"], LOAD_HEADER)
        return load_of(given) if given is not None and self.trusts(_peer(scope)) else None

    def describe(self, event: LiveEvent, headers: HeaderList) -> None:
        """Add what the headers of a trusted gateway tell besides method, path and address."""
        event.user_agent, event.referer = text_of(headers, "user-agent"), text_of(headers, "referer")
        event.credential = self._credential(headers)
        event.account = text_of(headers, self._account) or None
        event.fingerprint = text_of(headers, self._fingerprint) or None
        event.account_created = _number(text_of(headers, self._created))

    def time(self, headers: HeaderList) -> float:
        """Return the event's time where that counts, Unix s; 0 without one."""
        return _number(text_of(headers, "x-botsieve-time")) or 0

    def _trusts(self, peer: str) -> bool:
        address = _parsed(peer)
        return address is not None and _within(address, self._networks)

    def _address(self, headers: HeaderList) -> str:
        name = self._names.address
        values = [value.decode("latin-1") for key, value in headers if key == self._address_header]
        if name == "x-forwarded-for":
            address = self._last_untrusted(",".join(values).split(","))
        else:
            address = _parsed(values[0].strip()[:LONGEST_ADDRESS]) if len(values) == 1 else None
        if address is None:
            raise Problem(500, "gateway_address", f"the gateway must send the client's address in {name}, once")
        return client_address(str(address))

    def _last_untrusted(self, hops: list[str]) -> IPv4Address | IPv6Address | None:
        """Return the newest hop that is no trusted proxy: what stands before it, the client may have written itself.

        A hop that is no address ends the reading, and the trusted one behind it is the client: an internal client that wrote
        it must not bring about an error, and with that the gateway's fail mode.
        """
        found = None
        for hop in reversed(hops):
            address = _parsed(hop.strip()[:LONGEST_ADDRESS])
            if address is None:
                break
            found = address
            if not _within(address, self._networks):
                break
        return found

    def _credential(self, headers: HeaderList) -> str | None:
        given = only(headers, b"authorization") or only(headers, b"x-api-key")
        return None if not given else blake2b(given, key=self._key, digest_size=12).hexdigest()


class Reply(NamedTuple):
    """What a gateway is told: the answer, and what it hands to the client where the request is refused."""

    answer: Answer
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Authorize:
    """Serves the route for one gate."""

    def __init__(self, gate: Gate, batcher: Batcher, access: Access, metrics: Metrics, secret: bytes) -> None:
        self._gate, self._batcher, self._access, self._metrics = gate, batcher, access, metrics
        self.forwarded = Forwarded(gate.settings, secret, gate.tallies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by status."""
        headers: HeaderList = scope["headers"]
        try:
            self._access.check_headers(headers)
            if not self._access.token_fits(only(headers, TOKEN_HEADER)):
                raise Problem(500, "token", f"the gateway must send the service's token in {TOKEN_HEADER.decode()}")
            event, live = self.forwarded.event(scope), Live(carried_pass(headers), self.forwarded.load(scope))
            reply = await self.decide(event, live, text_of(headers, "accept") or "")
        except Problem as problem:
            self._gate.tallies.rejected[problem.reason] += 1
            problem.status = 500  # so that the gateway's fail mode acts, whatever is wrong with its call
            await refuse(send, problem)
            return
        await respond(send, reply.status, reply.body, reply.headers)

    async def decide(self, event: LiveEvent, live: Live, accept: str) -> Reply:
        """Decide about an event; `accept` chooses between a page and a document. Raises Problem, with nothing changed."""
        with self._metrics.latency("authorize"):
            try:
                pending = self._gate.prepare([event])
            except Rejected as error:
                raise Problem(500, error.reason, str(error)) from error
            (answer,) = await self._batcher.submit(pending, live)
        status, headers = STATUS[answer.enforced], _headers(answer)
        if status == STATUS["allow"]:
            return Reply(answer, status, headers, b"")
        page = self._gate.hooks.page and self._gate.hooks.page(answer, accept, event.path)
        if page:
            return Reply(answer, status, [*headers, *page[0]], page[1])
        return Reply(answer, status, [*headers, PROBLEM, *_NO_STORE], _document(answer, status))


_NO_STORE: Headers = ((b"cache-control", b"no-store"), (b"vary", b"accept"))


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-botsieve-decision", answer.decision.encode()),
        (b"x-botsieve-enforced", answer.enforced.encode()),
        (b"x-botsieve-id", answer.id.encode()),
    ]
    if answer.score is not None:
        headers.append((b"x-botsieve-score", b"%d" % answer.score))
    if answer.failed is not None:
        headers.append((b"x-botsieve-failed", answer.failed.encode()))
    if answer.enforced == "challenge":
        url = "" if answer.challenge is None else f' challenge="{answer.challenge["url"]}"'
        headers.append((b"www-authenticate", b"Botsieve" + url.encode()))
    if answer.challenge is not None:  # what stands last in the URL, for gateways that fetch it themselves
        headers.append((b"x-botsieve-challenge", answer.challenge["url"].rpartition("/")[2].encode()))
        if "wait" in answer.challenge:
            headers.append((b"retry-after", b"%d" % answer.challenge["wait"]))
    return headers


def _document(answer: Answer, status: int) -> bytes:
    """Return what a program reads; no reasons, which would tell an attacker what to change."""
    title, detail = _SAY[status]
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "id": answer.id}
    if answer.challenge is not None:
        document["challenge"] = answer.challenge
        if "wait" in answer.challenge:
            document["detail"] = WAITING
    return msgspec.json.encode(document)


def carried_pass(headers: HeaderList) -> str | None:
    """Return the pass in the header, else in the cookie."""
    given = only(headers, PASS_HEADER)
    if given is not None:
        return given.decode("latin-1")
    for name, value in headers:
        if name == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, content = part.strip().partition("=")
                if key == COOKIE:
                    return content.strip('"') or None
    return None


def text_of(headers: HeaderList, name: str) -> str | None:
    """Return a header as text if it stands there once; the bytes of UTF-8 where it is that."""
    if not name:
        return None
    value = only(headers, name.encode())
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _peer(scope: Scope) -> str:
    """Return the address of whoever opened the connection; empty where that is not known."""
    return scope["client"][0] if scope.get("client") else ""


def _own_path(scope: Scope) -> str:
    """Return the path behind the prefix, with its query, as the gateway asked for it."""
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").partition("?")[0].removeprefix(PREFIX) or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _path_of(uri: str) -> str:
    """Return path and query of a URI, without scheme and host."""
    if uri.startswith("/"):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri or "/"
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def size_of(text: str | None) -> int | None:
    """Return a number of bytes as a header states it, None for what is none or more than there can be."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


LONGEST_ADDRESS = 128
"""Characters of an address that are looked at, brackets, zone and port included: what is remembered has a bound."""


@lru_cache(maxsize=65_536)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, IPv4 where it is IPv4 in IPv6; None for what is none. A port or brackets are taken off."""
    try:
        address = ip_address(without_port(text).partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _within(address: IPv4Address | IPv6Address, networks: list[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
