"""User agents: a coarse class, and a normal form that stands in where no TLS fingerprint is known.

Declared bots come from the `crawler-user-agents` list, matched by RE2 in linear time; API client libraries, which that
list does not know, from a table of ours.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING, BROWSER, CLIENT_LIBRARY, DECLARED_BOT, OTHER = range(5)
"""Values of the feature `request_agent_class`."""

CLIENT_LIBRARIES = (
    r"^openai(-python|-node)?/", r"^(async)?openai/", r"^anthropic", r"^(async)?anthropic/", r"^litellm", r"^langchain",
    r"^llama[-_]?index", r"^cohere", r"^mistral", r"^google-genai", r"^ollama", r"^vllm", r"^huggingface", r"^hf_hub",
    r"^python-requests/", r"^python-httpx/", r"^python-urllib", r"^aiohttp/|aiohttp/", r"^python/", r"^urllib3/", r"^curl/",
    r"^wget/", r"^go-http-client/", r"^okhttp/", r"^axios/", r"^node-fetch", r"^node$", r"^undici", r"^got[ /(]",
    r"^java/", r"^apache-httpclient", r"^reqwest", r"^rust", r"^ruby", r"^faraday", r"^guzzlehttp", r"^php",
    r"^postmanruntime/", r"^insomnia/", r"^dart/", r"^swift", r"^cfnetwork|^[a-z]+/[0-9.]+ cfnetwork", r"^powershell",
    r"^\.net|^dotnet|^restsharp", r"^libcurl", r"^deno/", r"^bun/", r"^vercel", r"^ai-sdk", r"^semantic-kernel",
    r"^cline|^cursor|^continue|^copilot|^zed|^vscode|^jetbrains", r"^grpc",
)  # fmt: skip
"""User agents of libraries and tools with which programs call an inference API (lower case, RE2 syntax)."""

_VERSION = re.compile(r"[0-9]+(?:[._][0-9]+)*")
_LONGEST = 512
"""Characters of a user agent that are looked at: long ones cost no more, and say no more."""


@cache
def _patterns() -> tuple[Any, Any]:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    libraries = re2.compile("|".join(CLIENT_LIBRARIES), options)
    bots = re2.compile("|".join(f"(?:{entry['pattern']})" for entry in _crawlers()), options)
    return bots, libraries


def _crawlers() -> list[dict[str, Any]]:
    """Read the list without importing its package, which takes it to be in the locale's encoding."""
    package = find_spec("crawleruseragents")
    if package is None or package.origin is None:
        raise ImportError("crawler-user-agents is not installed")
    entries: list[dict[str, Any]] = json.loads(Path(package.origin).with_name("crawler-user-agents.json").read_bytes())
    return entries


def agent_class(user_agent: str | None) -> int:
    """Classify a user agent. A library of our table is one, even where the list of bots names it too (curl, Go)."""
    if user_agent is None or user_agent in ("", "-"):
        return MISSING
    text = user_agent[:_LONGEST]
    bots, libraries = _patterns()
    if libraries.search(text.lower().encode()):  # of bytes RE2 needs no positions counted
        return CLIENT_LIBRARY
    if bots.search(text.encode()):
        return DECLARED_BOT
    if text.startswith(("Mozilla/", "Opera/")):
        return BROWSER
    return OTHER


def normal_agent(user_agent: str) -> str:
    """Return the user agent in lower case with each version number as one 0: versions come and go, programs stay."""
    return _VERSION.sub("0", user_agent[:_LONGEST].lower())
