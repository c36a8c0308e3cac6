"""Every setting of the service, in one table: `BOTSIEVE_NAME` in the environment, `name` in a TOML file.

The environment wins over the file, and the command line over both. docs/configuration.md describes each; a test compares the
two. The key of the hashes, `BOTSIEVE_HASH_KEY`, is read from the environment alone: see `classifier.features.hashing`.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from classifier.errors import InputError

Mode = Literal["shadow", "enforce"]
FailMode = Literal["open", "closed"]
Gateway = Literal["forwarded", "nginx", "envoy"]
Share = Annotated[float, Field(ge=0, lt=1)]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$", max_length=64)]

CONFIG_VARIABLE = "BOTSIEVE_CONFIG"


class Names(NamedTuple):
    """The headers in which a gateway tells of the client's request; empty for none."""

    method: str
    uri: str
    address: str
    length: str


PRESETS: dict[str, Names] = {
    "forwarded": Names("x-forwarded-method", "x-forwarded-uri", "x-forwarded-for", ""),
    "nginx": Names("x-original-method", "x-original-uri", "x-real-ip", "x-original-content-length"),
    "envoy": Names("", "", "x-envoy-external-address", ""),
}


def _check_budgets(block: float | None, challenge: float | None) -> None:
    if block is not None and challenge is not None and block > challenge:
        raise ValueError("a block budget must not be above its challenge budget, which counts blocks too")


def plain_path(path: str) -> str:
    """Return a path as servers read it: without query and fragment, percent-decoded once, its slashes and dots resolved.

    Repeated slashes count as one and before the dots, as nginx has it.
    """
    path = path.partition("?")[0].partition("#")[0]
    if "%" in path:
        path = unquote(path)
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part and part != ".":
            kept.append(part)
    end = "/" if kept and parts[-1] in ("", ".", "..") else ""
    return "/" * path.startswith("/") + "/".join(kept) + end


class Route(BaseModel):
    """What holds for some paths of the gateway. The first route whose pattern fits counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="Pattern of paths, with * and ?, such as /v1/chat/*")
    mode: Mode | None = Field(None, description="shadow or enforce, instead of the service's mode")
    fail_mode: FailMode | None = Field(None, description="open or closed, instead of the service's fail mode")
    registration: bool = Field(False, description="New accounts are made here: budgets of registration hold")
    challenge_budget: Share | None = Field(None, description="Share of legitimate requests challenged or blocked, here")
    block_budget: Share | None = Field(None, description="Share of legitimate requests blocked, here")

    @field_validator("path")
    @classmethod
    def _fits_something(cls, value: str) -> str:
        if plain_path(value.replace("?", "x")) != value.replace("?", "x"):
            raise ValueError("no path fits this: write it percent-decoded, without //, /./, /../ and #")
        return value

    @model_validator(mode="after")
    def _budgets(self) -> Route:
        _check_budgets(self.block_budget, self.challenge_budget)
        return self


_ANY = Route.model_validate({"path": "*"})
LONGEST_KEPT = 256
"""Characters of a path up to which its route is remembered: nobody fills the memory with long ones."""


class Settings(BaseSettings):
    """The settings of one service. Raises pydantic's ValidationError; `load_settings` says the same in one line."""

    model_config = SettingsConfigDict(env_prefix="BOTSIEVE_", extra="forbid", frozen=True, hide_input_in_errors=True)

    bundle: Path = Field(description="Folder of the model that decides")
    challenger: Path | None = Field(None, description="Folder of a second model, which is scored and never obeyed")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8460, ge=0, le=65_535, description="Port to listen on; 0 for any that is free")
    grpc_port: int | None = Field(None, ge=0, le=65_535, description="Port for Envoy's gRPC; none unless it is set")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="What runs the model: auto (the fastest that is there), cpu or cuda"
    )
    clock: Literal["server", "event"] = Field("server", description="Whose time counts: the service's, or the event's")
    mode: Mode = Field("shadow", description="shadow decides and tells the gateway to allow; enforce means it")
    routes: tuple[Route, ...] = Field((), description="Mode, fail mode, registration and budgets by path pattern")
    warm_up_s: float = Field(3600.0, ge=0, description="s after an empty start in which nothing is enforced")
    fail_mode: FailMode = Field(
        "open", description="What answers when scoring fails or is late: open allows, closed blocks"
    )
    deadline_s: float = Field(0.1, gt=0, description="s that scoring may take before the fail mode answers")
    ahead_s: float = Field(300.0, gt=0, description="s that an event may lie ahead of the running clock")
    challenge_budget: Share | None = Field(
        None, description="Share of legitimate requests challenged or blocked; unless set, the bundle's"
    )
    block_budget: Share | None = Field(
        None, description="Share of legitimate requests blocked; unless set, the bundle's"
    )
    registration_challenge_budget: Share | None = Field(None, description="The same, where accounts are made")
    registration_block_budget: Share | None = Field(None, description="The same, where accounts are made")
    capacity: float | None = Field(
        None, gt=0, description="Tokens in flight at which the gateway is full (not train's or whatif's --capacity)"
    )
    load_start: float = Field(0.7, ge=0, lt=1, description="Load from which unknown clients are challenged sooner")
    load_budget: float = Field(
        1.0, ge=0, le=1, description="Challenge budget of clients that are not known at load 1; 1 is all of them"
    )
    load_when: Literal["attack", "always"] = Field(
        "attack", description="When load counts: while the service is under attack (/v1/situation), or always"
    )
    newcomers_wait: bool = Field(
        True, description="At a full gateway under attack, who is not known waits, with a pass, too"
    )
    load_s: float = Field(30.0, gt=0, description="s that a load holds that was stated")
    typical_tokens: float = Field(1000.0, gt=0, description="Tokens that a typical request takes, in and out")
    known_account_s: float = Field(86_400.0, ge=0, description="Age below which no account is known, s")
    known_client_s: float = Field(3_600.0, ge=0, description="Time that a known client came before the attack began, s")
    known_requests: int = Field(10, ge=1, description="Requests that a known client has made")
    token: SecretStr | None = Field(
        None, description="Bearer token for all but health, the challenge pages and /status"
    )
    console: bool = Field(False, description="Serve the console at /console to who has the token")
    console_secure: bool = Field(True, description="Whether the cookie of the console needs https (or localhost)")
    status_page: bool | None = Field(None, description="Serve /status to everybody; unless set, if the console is on")
    trusted_proxies: tuple[str, ...] = Field((), description="Networks whose forwarded headers are believed")
    gateway: Gateway = Field("forwarded", description="Which forwarded headers are read: forwarded, nginx or envoy")
    method_header: Header | None = Field(None, description="Header with the request's method; empty for its own")
    uri_header: Header | None = Field(None, description="Header with the request's URI; empty for its own")
    address_header: Header | None = Field(None, description="Header with the client's address")
    length_header: Header | None = Field(None, description="Header with the size of the request's body")
    account_header: Header = Field("", description="Header with the account that the gateway has verified")
    account_created_header: Header = Field("", description="Header with when that account was made, Unix s")
    fingerprint_header: Header = Field("", description="Header with the TLS fingerprint (JA4)")
    max_body_bytes: int = Field(1 << 20, ge=1024, description="Largest body of a single request, bytes")
    max_batch_bytes: int = Field(16 << 20, ge=1024, description="Largest body of a list, bytes")
    max_batch: int = Field(1024, ge=1, description="Most events or completions in a list")
    max_header_bytes: int = Field(65_536, ge=512, description="Most bytes in the headers of a request")
    body_timeout_s: float = Field(10.0, gt=0, description="s in which a request must have arrived")
    max_connections: int = Field(4096, ge=1, description="Connections beyond which new ones are closed")
    pending_limit: int = Field(1_000_000, ge=1, description="Requests in flight that are remembered")
    decisions_kept: int = Field(100_000, ge=1, description="Newest decisions that /v1/decisions can explain")
    state: Path | None = Field(None, description="Folder for snapshots, lists, passes, the audit and the status")
    snapshot_s: float = Field(60.0, gt=0, description="s between snapshots of the state")
    challenge_s: float = Field(300.0, gt=0, description="s in which a challenge may be solved")
    challenge_work_least: int = Field(256_000, ge=1, description="PBKDF2 iterations at score 99")
    challenge_work_most: int = Field(4_096_000, ge=1, description="PBKDF2 iterations at score 1")
    challenge_path: str = Field(
        "/v1/challenge", pattern=r"^/[!-~]*[!-.0-~]$", description="Where clients reach challenges"
    )
    challenge_secure: bool = Field(True, description="Whether the cookie of a pass needs https")
    site: str = Field("this site", max_length=200, description="What the challenge page calls the site")
    contact: str = Field("", max_length=500, description="Link for people whom the challenge page fails")
    pass_s: float = Field(600.0, gt=0, description="s that a pass holds")
    pass_requests: int = Field(200, ge=1, description="Requests that a pass serves")
    journal: Path | None = Field(None, description="Folder for the journal of what was processed")
    journal_days: float = Field(30.0, gt=0, description="Days that the journal is kept")
    pseudonyms: bool = Field(False, description="Write addresses and accounts of the journal as keyed hashes")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged: debug, info, warning or error"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (len(value.get_secret_value()) < 16 or not value.get_secret_value().isascii()):
            raise ValueError("must have 16 ASCII characters or more, e.g. of `openssl rand -hex 32`")
        return value

    @model_validator(mode="after")
    def _budgets(self) -> Settings:
        _check_budgets(self.block_budget, self.challenge_budget)
        _check_budgets(self.registration_block_budget, self.registration_challenge_budget)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line, then the environment, then the file that `BOTSIEVE_CONFIG` names."""
        file = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, toml_file=file),) if file else ()
        return (init_settings, env_settings, *toml)

    @model_validator(mode="after")
    def _behind_a_token(self) -> Settings:
        if self.console and self.token is None:
            raise ValueError("the console needs a token: set BOTSIEVE_TOKEN, e.g. to `openssl rand -hex 32`")
        return self

    @property
    def is_open(self) -> bool:
        """Whether others than this machine may connect, and need no token."""
        try:
            local = ip_address(self.host).is_loopback
        except ValueError:
            local = self.host == "localhost"
        return self.token is None and not local

    @property
    def shows_status(self) -> bool:
        """Whether /status is served."""
        return self.console if self.status_page is None else self.status_page

    @property
    def names(self) -> Names:
        """The headers that tell of the client's request: the gateway's, or those named one by one."""
        own = (self.method_header, self.uri_header, self.address_header, self.length_header)
        preset = PRESETS[self.gateway]
        return Names(*(name if mine is None else mine.lower() for name, mine in zip(preset, own, strict=True)))


class Rules:
    """What the settings say about a path: mode, fail mode, registration, budgets."""

    def __init__(self, settings: Settings) -> None:
        modes = {"mode": settings.mode, "fail_mode": settings.fail_mode}
        self.routes = tuple(
            route.model_copy(update={name: mode for name, mode in modes.items() if getattr(route, name) is None})
            for route in (*settings.routes, _ANY)
        )
        self._kept = lru_cache(maxsize=4096)(self._of)
        self._long = lru_cache(maxsize=8)(self._of)  # for as long as one request is decided, which asks more than once

    def of(self, path: str) -> Route:
        """Return the route of a path, its modes filled in."""
        if len(self.routes) == 1:
            return self.routes[0]
        bare = path.partition("?")[0]
        return self._kept(bare) if len(bare) <= LONGEST_KEPT else self._long(bare)

    def _of(self, bare: str) -> Route:
        plain = plain_path(bare)
        return next(route for route in self.routes if fnmatchcase(plain, route.path))


def load_settings(**given: Any) -> Settings:
    """Read the settings; what is given (and not None) wins. Raises InputError, one line, without the values."""
    file = os.environ.get(CONFIG_VARIABLE)
    if file and not Path(file).is_file():
        raise InputError(f"{CONFIG_VARIABLE} names {file}, which is no file; see docs/configuration.md")
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        if (name, first["type"]) == ("bundle", "missing"):
            raise InputError("no bundle was named; give --bundle DIR, or see docs/configuration.md") from error
        reason = first["msg"].removeprefix("Value error, ")
        hint = "is no setting" if first["type"] == "extra_forbidden" else f"cannot be used: {reason}"
        raise InputError(f"{name} {hint}; see docs/configuration.md") from error
    except ValueError as error:  # TOML or JSON that does not parse
        raise InputError(
            f"the settings cannot be read ({str(error).splitlines()[0]}); see docs/configuration.md"
        ) from error
