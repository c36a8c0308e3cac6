"""What a path tells without knowing the site: depth, length, assets, probes, and its template."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

ASSETS = (
    "css", "js", "mjs", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "avif", "bmp", "woff", "woff2", "ttf",
    "otf", "eot", "mp4", "webm", "mp3", "swf",
)  # fmt: skip
"""File endings of what a browser loads along with a page."""
PROBES = (
    r"/\.(env|git|svn|hg|aws|ssh|htaccess|htpasswd|ds_store|vscode)", r"/wp-(login|admin|content/plugins|includes|json/wp)",
    r"/xmlrpc\.php", r"/phpmyadmin|/pma/|/myadmin", r"/(phpinfo|info|shell|cmd|config|eval-stdin|setup|install)\.php",
    r"/cgi-bin/", r"/vendor/phpunit", r"/(actuator|jolokia|solr|manager/html|hudson|jenkins|boaform|hnap1)",
    r"/(backup|dump|db|database)\.(sql|zip|tar|gz|bak)", r"\.(bak|old|swp|sql)$", r"\.\./|%2e%2e|\.\.%2f", r"/etc/passwd",
    r"(union\+|union%20)?(all\+)?select(\+|%20)", r"<script|%3cscript", r"/(administrator|admin/config|fckeditor|ckfinder)",
    r"/(muieblackcat|w00tw00t|zmeu|scripts/setup)", r"\\x[0-9a-f]{2}\\x[0-9a-f]{2}", r"/(owa|ecp|autodiscover|remote/fgt)",
    r"/(telescope|_profiler|_ignition|server-status|druid/index)", r"^(proxy|https?):",
)  # fmt: skip
"""Paths that vulnerability scanners try (RE2, lower case); an inference gateway serves none of them."""
_LONGEST = 2048
_PLACEHOLDER = "0"
_DIGIT, _VERSION = re.compile(r"\d"), re.compile(r"v[0-9]+")
_OPAQUE = 24
"""A segment longer than this without a separator is an identifier, not a name."""


class PathTraits(NamedTuple):
    """What one path tells."""

    depth: int
    length: int
    query: bool
    asset: bool
    probe: bool
    template: str


@cache
def _probes() -> Any:
    import re2

    return re2.compile("|".join(PROBES))


def _fold(segment: str) -> str:
    if _DIGIT.search(segment) and not _VERSION.fullmatch(segment):
        return _PLACEHOLDER
    return _PLACEHOLDER if len(segment) > _OPAQUE and "-" not in segment and "_" not in segment else segment.lower()


def path_traits(path: str) -> PathTraits:
    """Describe a path (with its query string): depth and length of the part before `?`, and the folded template."""
    bare, mark, _ = path.partition("?")
    segments = [segment for segment in bare[:_LONGEST].split("/") if segment]
    ending = segments[-1].rpartition(".")[2].lower() if segments and "." in segments[-1] else ""
    return PathTraits(
        depth=len(segments),
        length=len(bare),
        query=bool(mark),
        asset=ending in ASSETS,
        probe=_probes().search(path[:_LONGEST].lower().encode()) is not None,
        template="/" + "/".join(_fold(segment) for segment in segments),
    )
