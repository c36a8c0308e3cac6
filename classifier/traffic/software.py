"""Client software: user agents and TLS fingerprints of browsers, libraries, crawlers and tools.

A fingerprint (JA4) belongs to a TLS library and not to a person, so everybody on one library version shares it. Those
below have JA4's form; except for the browsers they are made up from the library's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np


@dataclass(frozen=True)
class Software:
    """What a client runs: its kind, the user agent it sends (None: no header) and its TLS fingerprint."""

    kind: str
    user_agent: str | None
    fingerprint: str | None


def _ja4(library: str, form: str = "t13d1814h2") -> str:
    digest = blake2b(library.encode(), digest_size=12).hexdigest()
    return f"{form}_{digest[:12]}_{digest[12:]}"


_CHROME = "t13d1516h2_8daaf6152771_02713d6af862"
_FIREFOX = "t13d1715h2_5b57614c22b0_3d5424432f57"
_SAFARI = "t13d2014h2_a09f3c656075_14788d8d241b"
_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


def _chromium(system: str, version: int, suffix: str = "", mobile: str = "") -> Software:
    agent = f"Mozilla/5.0 ({system}) {_WEBKIT} Chrome/{version}.0.0.0 {mobile}Safari/537.36{suffix}"
    return Software("browser", agent, _CHROME)


_WINDOWS = "Windows NT 10.0; Win64; x64"
_MAC = "Macintosh; Intel Mac OS X 10_15_7"
_LINUX = "X11; Linux x86_64"
_IPHONE = "iPhone; CPU iPhone OS 18_1 like Mac OS X"


def _safari(system: str, version: str, mobile: str = "") -> Software:
    agent = f"Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{version} {mobile}Safari/605.1.15"
    return Software("browser", agent, _SAFARI)


def _firefox(system: str, version: int) -> Software:
    agent = f"Mozilla/5.0 ({system}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
    return Software("browser", agent, _FIREFOX)


BROWSERS: Final = (
    *(_chromium(_WINDOWS, v) for v in (124, 128, 130, 131)),
    *(_chromium(_MAC, v) for v in (126, 130, 131)),
    *(_chromium(_LINUX, v) for v in (120, 131)),
    *(_chromium("Linux; Android 10; K", v, mobile="Mobile ") for v in (129, 131)),
    *(_chromium(_WINDOWS, v, f" Edg/{v}.0.0.0") for v in (129, 131)),
    _safari(_MAC, "17.6"),
    _safari(_MAC, "18.1"),
    _safari(_IPHONE, "18.1", "Mobile/15E148 "),
    _safari("iPad; CPU OS 17_7 like Mac OS X", "17.7", "Mobile/15E148 "),
    _firefox(_WINDOWS, 132),
    _firefox(_WINDOWS, 128),
    _firefox(_LINUX, 132),
    _firefox("Macintosh; Intel Mac OS X 10.15", 132),
)
_HTTPX = _ja4("httpx-openssl3", "t13d1811h2")
_PYTHON = _ja4("urllib3-openssl3", "t13d1812h1")
_AIOHTTP = _ja4("aiohttp-openssl3", "t13d1811h1")
_NODE = _ja4("node-undici-20", "t13d591000")
_GO = _ja4("go-1.22-crypto-tls", "t13d1311h2")
_JAVA = _ja4("jdk-21-jsse", "t13d2009h2")
_RUST = _ja4("rustls-0.23", "t13d1012h2")
_CURL = _ja4("curl-8-openssl3", "t13d3112h2")
SDKS: Final = (
    *(Software("sdk", f"OpenAI/Python {v}", _HTTPX) for v in ("1.40.6", "1.54.3", "1.30.1", "0.28.1")),
    *(Software("sdk", f"AsyncOpenAI/Python {v}", _HTTPX) for v in ("1.40.6", "1.54.3")),
    *(Software("sdk", f"OpenAI/JS {v}", _NODE) for v in ("4.67.3", "4.52.7")),
    Software("sdk", "Anthropic/Python 0.39.0", _HTTPX),
    Software("sdk", "langchain-openai/0.2.8 OpenAI/Python 1.54.3", _HTTPX),
    Software("sdk", "litellm/1.52.0", _HTTPX),
    Software("sdk", "python-httpx/0.27.2", _HTTPX),
    Software("sdk", "python-requests/2.32.3", _PYTHON),
    Software("sdk", "python-requests/2.31.0", _PYTHON),
    Software("sdk", "Python/3.11 aiohttp/3.10.5", _AIOHTTP),
    Software("sdk", "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", _NODE),
    Software("sdk", "axios/1.7.7", _NODE),
    Software("sdk", "Go-http-client/2.0", _GO),
    Software("sdk", "go-openai/1.32.0", _GO),
    Software("sdk", "okhttp/4.12.0", _JAVA),
    Software("sdk", "Java-http-client/21.0.4", _JAVA),
    Software("sdk", "reqwest/0.12.7", _RUST),
    Software("sdk", "curl/8.5.0", _CURL),
    Software("sdk", None, _GO),
)
IDES: Final = (
    *(Software("ide", f"GithubCopilotChat/{v}", _ja4("electron-30", "t13d1517h2")) for v in ("0.22.2", "0.23.1")),
    Software("ide", "Continue/0.9.221 (VSCode 1.95.1)", _NODE),
    Software("ide", "cursor/0.42.5", _ja4("electron-30", "t13d1517h2")),
    Software("ide", "JetBrains-AI/242.23726", _JAVA),
    Software("ide", "aider/0.63.0 litellm/1.52.0", _HTTPX),
)
AGENTS: Final = (
    Software("agent", "langchain-openai/0.2.8 OpenAI/Python 1.54.3", _HTTPX),
    Software("agent", "AsyncOpenAI/Python 1.54.3", _HTTPX),
    Software("agent", "OpenAI/JS 4.67.3", _NODE),
    Software("agent", "autogen/0.4.0 httpx/0.27.2", _HTTPX),
)
CRAWLERS: Final = (
    Software("crawler", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", _ja4("googlebot")),
    Software("crawler", "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", _ja4("bingbot")),
    Software("crawler", "Mozilla/5.0 AppleWebKit/537.36 (compatible; GPTBot/1.2; +https://openai.com/gptbot)", _HTTPX),
    Software("crawler", "CCBot/2.0 (https://commoncrawl.org/faq/)", _JAVA),
    Software("crawler", "Mozilla/5.0 AppleWebKit/537.36 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", _HTTPX),
    Software("crawler", "Mozilla/5.0 (compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)", _AIOHTTP),
    Software("crawler", "DuckDuckBot/1.1; (+http://duckduckgo.com/duckduckbot.html)", _ja4("duckduckbot")),
    Software("crawler", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", _GO),
)
NEW_LIBRARY: Final = Software("sdk", "quickllm/0.3.2 httpx/0.28.0", _ja4("quickllm-openssl3", "t13d1711h2"))
"""A client library that has just become popular: nobody else has its fingerprint."""
RESEARCH: Final = Software("sdk", "model-audit/1.4 (security research; contact: audit@lab.example)", _HTTPX)
MONITORS: Final = (
    Software("monitor", "kube-probe/1.29", _GO),
    Software("monitor", "Blackbox Exporter/0.25.0", _GO),
    Software("monitor", "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)", _ja4("uptimerobot")),
)
TOOLS: Final = (
    Software("tool", "python-requests/2.31.0", _PYTHON),
    Software("tool", "Go-http-client/2.0", _GO),
    Software("tool", "curl/8.5.0", _CURL),
    Software("tool", "okhttp/4.12.0", _JAVA),
    Software("tool", "Python/3.11 aiohttp/3.10.5", _AIOHTTP),
    Software("tool", "python-requests/2.28.1", _PYTHON),
    Software("tool", "Go-http-client/1.1", _GO),
    Software("tool", None, _GO),
    Software("tool", "Mozilla/5.0", _PYTHON),
)


def pick(rng: np.random.Generator, pool: tuple[Software, ...]) -> Software:
    """Draw from a pool, its front a little more often than its end, as versions are spread."""
    return pool[int(len(pool) * rng.beta(1.0, 1.3))]
