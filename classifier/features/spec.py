"""The features: one ordered table, from which columns, documentation, schema hash and reason codes derive.

A *measure* is a formula over one profile (`profile.read`); a *feature* is a measure of one entity, a property of the
request itself, or a ratio of two measures. Values are float32, NaN where undefined. Rates and shares marked with a time are
decayed sums of that half-life.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from classifier.events import EXPIRY_S

HALF_LIVES_S = (1, 8, 64, 512, 4096, 65536)
"""Half-lives of the decayed sums, s. Each is a power of two times the one before: see `profile._weigh`."""
GENERATION_S = 3600
"""Sketches count what was seen in the current and the previous generation of this length, s."""
ENTITIES = ("client", "address", "network", "fingerprint", "template", "everyone")


class Measure(NamedTuple):
    """A formula over one profile: its name, unit, meaning and reason group."""

    name: str
    unit: str
    meaning: str
    reason: str


class Feature(NamedTuple):
    """One column of the feature matrix. `part` is own (what the client did) or group (the company it keeps)."""

    name: str
    entity: str
    unit: str
    meaning: str
    reason: str
    part: str


MEASURES = (
    *(Measure(f"rate_{h}s", "1/s", f"requests per second, half-life {h} s", "rate") for h in HALF_LIVES_S),
    Measure("burst_short", "ratio", "rate of 1 s over rate of 64 s", "burst"),
    Measure("burst_long", "ratio", "rate of 64 s over rate of 4096 s", "burst"),
    Measure("gap", "log2 s", "time since the previous request", "timing"),
    Measure("gap_mean_64s", "log2 s", "mean of log time between requests, 64 s", "timing"),
    Measure("gap_std_64s", "log2 s", "deviation of log time between requests, 64 s: 0 is a metronome", "timing"),
    Measure("gap_mean_4096s", "log2 s", "mean of log time between requests, 4096 s", "timing"),
    Measure("gap_std_4096s", "log2 s", "deviation of log time between requests, 4096 s", "timing"),
    Measure("page_gap_mean", "log2 s", "mean of log time between requests for pages, not assets", "timing"),
    Measure("page_gap_std", "log2 s", "deviation of log time between requests for pages", "timing"),
    Measure("page_gap_under_1s", "share", "pages asked for within 1 s of the page before", "timing"),
    Measure("page_gap_under_8s", "share", "pages asked for 1 to 8 s after the page before", "timing"),
    Measure("page_gap_under_64s", "share", "pages asked for 8 to 64 s after the page before", "timing"),
    Measure("in_flight", "requests", "requests whose response has not ended", "in_flight"),
    Measure("requests_seen", "requests", "requests since the profile began", "volume"),
    Measure("age", "s", "time since the profile began", "newness"),
    Measure("post_share", "share", "requests with method POST", "method"),
    Measure("referer_share", "share", "requests with a referer", "browser"),
    Measure("repeat_share", "share", "requests for the same path as the one before", "paths"),
    Measure("revisit_share", "share", "requests for a path seen before within two hours", "paths"),
    Measure("other_method_share", "share", "requests with a method other than GET and POST", "method"),
    Measure("asset_share", "share", "requests for images, styles, scripts and fonts", "browser"),
    Measure("probe_share", "share", "requests for paths that vulnerability scanners try", "probing"),
    Measure("query_share", "share", "requests with a query string", "paths"),
    Measure("no_agent_share", "share", "requests without a user agent", "user_agent"),
    Measure("browser_share", "share", "requests whose user agent is a browser", "user_agent"),
    Measure("sdk_share", "share", "requests whose user agent is an API client library", "user_agent"),
    Measure("declared_bot_share", "share", "requests whose user agent declares a bot", "user_agent"),
    Measure("depth_mean", "segments", "mean depth of the path", "paths"),
    Measure("depth_std", "segments", "deviation of the depth of the path", "paths"),
    Measure("length_mean", "log2 characters", "mean log length of the path", "paths"),
    Measure("length_std", "log2 characters", "deviation of the log length of the path", "paths"),
    Measure("request_size_mean", "log2 bytes", "mean log size of the request body", "sizes"),
    Measure("request_size_std", "log2 bytes", "deviation of the log size of the request body", "sizes"),
    Measure("response_size_mean", "log2 bytes", "mean log size of the response body", "sizes"),
    Measure("response_size_std", "log2 bytes", "deviation of the log size of the response body", "sizes"),
    Measure("duration_mean", "log2 s", "mean log duration", "duration"),
    Measure("duration_std", "log2 s", "deviation of the log duration", "duration"),
    Measure("cap_mean", "log2 tokens", "mean log of max_tokens", "tokens"),
    Measure("prompt_length_mean", "log2 characters", "mean log length of the prompt", "prompts"),
    Measure("prompt_length_std", "log2 characters", "deviation of the log length of the prompt", "prompts"),
    Measure("prompt_score_mean", "log odds", "mean log odds that a prompt is a jailbreak or an injection", "prompts"),
    Measure("prompt_alarm_share", "share", "prompts that read like a jailbreak or an injection", "prompts"),
    Measure("account_age_mean", "log2 s", "mean log age of the accounts", "account_age"),
    Measure("auth_error_share_64s", "share", "responses 401 and 403, 64 s", "auth_errors"),
    Measure("auth_error_share_4096s", "share", "responses 401 and 403, 4096 s", "auth_errors"),
    Measure("not_found_share_4096s", "share", "responses 404", "probing"),
    Measure("limited_share_64s", "share", "responses 429, 64 s", "limited"),
    Measure("limited_share_4096s", "share", "responses 429, 4096 s", "limited"),
    Measure("client_error_share_4096s", "share", "other 4xx responses", "errors"),
    Measure("server_error_share_4096s", "share", "5xx responses", "errors"),
    Measure("input_token_rate_64s", "tokens/s", "input tokens per second, 64 s", "tokens"),
    Measure("input_token_rate_4096s", "tokens/s", "input tokens per second, 4096 s", "tokens"),
    Measure("output_token_rate_64s", "tokens/s", "output tokens per second, 64 s", "tokens"),
    Measure("output_token_rate_4096s", "tokens/s", "output tokens per second, 4096 s", "tokens"),
    Measure("output_token_rate_65536s", "tokens/s", "output tokens per second, 65536 s", "tokens"),
    Measure("input_tokens_per_request", "tokens", "input tokens per answered request, 4096 s", "tokens"),
    Measure("output_tokens_per_request", "tokens", "output tokens per answered request, 4096 s", "tokens"),
    Measure("used_over_asked", "ratio", "output tokens used over max_tokens asked for", "tokens"),
    Measure("distinct_paths", "paths", "distinct paths in two hours", "paths"),
    Measure("distinct_models", "models", "distinct models in two hours", "models"),
    Measure("distinct_fingerprints", "fingerprints", "distinct client fingerprints in two hours", "identity"),
    Measure("distinct_clients", "clients", "distinct clients in two hours", "crowd"),
    Measure("distinct_addresses", "addresses", "distinct addresses in two hours", "identity"),
    Measure("distinct_credentials", "credentials", "distinct unverified credentials in two hours", "credentials"),
    Measure("distinct_templates", "templates", "distinct prompt templates in two hours", "prompts"),
    Measure("fingerprints_per_client", "ratio", "distinct fingerprints over distinct clients in two hours", "identity"),
    Measure("addresses_per_client", "ratio", "distinct addresses over distinct clients in two hours", "identity"),
    Measure(
        "credentials_per_client", "ratio", "distinct unverified credentials over distinct clients in two hours",
        "credentials",
    ),
)  # fmt: skip
MEASURE_INDEX = {measure.name: index for index, measure in enumerate(MEASURES)}

REQUEST = (
    Measure("is_post", "0/1", "the method is POST", "method"),
    Measure("path_depth", "segments", "depth of the path", "paths"),
    Measure("path_length", "log2 characters", "log length of the path", "paths"),
    Measure("has_query", "0/1", "the path has a query string", "paths"),
    Measure("is_asset", "0/1", "the path is of an image, style, script or font", "browser"),
    Measure("is_probe", "0/1", "the path is one that vulnerability scanners try", "probing"),
    Measure("has_referer", "0/1", "a referer is sent", "browser"),
    Measure(
        "agent_class", "class", "user agent: 0 none, 1 browser, 2 API client, 3 declared bot, 4 other", "user_agent"
    ),
    Measure("request_size", "log2 bytes", "log size of the request body", "sizes"),
    Measure("cap", "log2 tokens", "log of max_tokens", "tokens"),
    Measure("account_age", "log2 s", "log age of the account", "account_age"),
    Measure("prompt_length", "log2 characters", "log length of the prompt", "prompts"),
)
"""Properties of the request itself."""

GROUP_MEASURES: dict[str, tuple[str, ...]] = {
    "address": (
        "rate_8s", "rate_64s", "rate_4096s", "burst_long", "gap_std_4096s", "in_flight", "requests_seen", "age",
        "auth_error_share_4096s", "not_found_share_4096s", "account_age_mean", "distinct_paths",
        "distinct_fingerprints", "distinct_clients", "distinct_credentials", "post_share",
    ),
    "network": (
        "rate_64s", "rate_4096s", "burst_long", "in_flight", "age", "auth_error_share_4096s", "not_found_share_4096s",
        "account_age_mean", "fingerprints_per_client", "addresses_per_client", "credentials_per_client",
    ),
    "fingerprint": (
        "rate_64s", "rate_4096s", "burst_long", "in_flight", "age", "auth_error_share_4096s", "not_found_share_4096s",
        "account_age_mean", "output_tokens_per_request", "distinct_clients", "distinct_addresses",
        "distinct_templates", "post_share", "referer_share",
    ),
    "template": (
        "rate_64s", "rate_4096s", "burst_long", "gap_std_4096s", "age", "auth_error_share_4096s", "account_age_mean",
        "output_tokens_per_request", "distinct_clients", "distinct_addresses", "distinct_fingerprints",
    ),
    "everyone": (
        "rate_64s", "rate_4096s", "burst_long", "in_flight", "auth_error_share_4096s", "not_found_share_4096s",
        "account_age_mean", "distinct_clients",
    ),
}  # fmt: skip
"""Which measures of the group entities are features; of the client, all but those of `_NOT_OF_CLIENT` are.

Of a network, distinct things are counted per client: how many clients share a cloud's network grows with the service.
"""
_NOT_OF_CLIENT = ("distinct_clients", "fingerprints_per_client", "addresses_per_client", "credentials_per_client")
_GROUP_REASON = {
    "auth_errors": "errors", "probing": "errors", "credentials": "errors", "account_age": "accounts",
    "crowd": "crowd", "identity": "crowd", "prompts": "crowd", "tokens": "tokens",
}  # fmt: skip
"""Reason groups of group features are coarser: the entity, and one of errors, accounts, crowd, tokens, activity."""

RATIOS = (
    ("share_of_everyone_64s", "client", "rate_64s", "everyone", "rate_64s", "client's share of all requests, 64 s"),
    ("share_of_everyone_4096s", "client", "rate_4096s", "everyone", "rate_4096s", "client's share of all requests"),
    ("share_of_address", "client", "rate_4096s", "address", "rate_4096s", "client's share of its address"),
    ("share_of_network", "client", "rate_4096s", "network", "rate_4096s", "client's share of its network"),
    ("network_share_of_everyone", "network", "rate_4096s", "everyone", "rate_4096s", "network's share of all requests"),
    ("fingerprint_share_of_everyone", "fingerprint", "rate_4096s", "everyone", "rate_4096s",
     "fingerprint's share of all requests"),
    ("template_share_of_everyone", "template", "rate_4096s", "everyone", "rate_4096s",
     "template's share of all requests"),
    ("fingerprint_surge", "fingerprint", "burst_long", "everyone", "burst_long",
     "burst of the fingerprint over that of everyone"),
    ("template_surge", "template", "burst_long", "everyone", "burst_long",
     "burst of the template over that of everyone"),
)  # fmt: skip
"""Ratios of two columns of the same row: name, entity and measure above, entity and measure below, meaning."""


def measures_of(entity: str) -> tuple[str, ...]:
    """Return the names of the measures of `entity` that are features, in column order."""
    if entity == "client":
        return tuple(m.name for m in MEASURES if m.name not in _NOT_OF_CLIENT)
    return GROUP_MEASURES[entity]


def _features() -> tuple[Feature, ...]:
    request = [Feature(f"request_{m.name}", "request", m.unit, m.meaning, m.reason, "own") for m in REQUEST]
    profiles = [
        Feature(
            f"{entity}_{name}", entity, measure.unit, f"{entity}: {measure.meaning}",
            measure.reason if entity == "client" else f"{entity}_{_GROUP_REASON.get(measure.reason, 'activity')}",
            "own" if entity == "client" else "group",
        )
        for entity in ENTITIES
        for name in measures_of(entity)
        for measure in [MEASURES[MEASURE_INDEX[name]]]
    ]  # fmt: skip
    ratios = [
        Feature(name, "ratio", "ratio", meaning, "share" if above == "client" else f"{above}_activity", "group")
        for name, above, _, _, _, meaning in RATIOS
    ]
    return (*request, *profiles, *ratios)


FEATURES = _features()
NAMES = tuple(feature.name for feature in FEATURES)
COLUMN = {name: index for index, name in enumerate(NAMES)}
GROUPS = tuple(sorted({feature.reason for feature in FEATURES} | set(ENTITIES) | {"request", "ratio", "group"}))
"""Names that `--without` takes: reason groups, entities, and `group` for all features that are not the client's own."""


def columns_without(groups: tuple[str, ...] | list[str]) -> list[int]:
    """Return the columns that stay when the named groups are left out. Raises KeyError for an unknown group."""
    for group in groups:
        if group not in GROUPS:
            raise KeyError(group)
    return [
        column
        for column, feature in enumerate(FEATURES)
        if not {feature.reason, feature.entity, feature.part} & set(groups)
    ]


def spec_hash() -> str:
    """Return the SHA-256 (hex) of everything that gives the columns their meaning."""
    content = [HALF_LIVES_S, GENERATION_S, EXPIRY_S, [tuple(feature) for feature in FEATURES]]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
