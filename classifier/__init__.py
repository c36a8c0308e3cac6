"""botsieve: tells malicious bots from legitimate clients in front of LLM inference gateways.

What notebooks and scripts use stands in `__all__` and is described in `classifier.api`. It is loaded when it is first asked
for: the command line and the service need none of it, and pandas alone takes longer than `botsieve --help` may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classifier.errors import BotsieveError, BundleError, InputError, LogError, PromotionError

if TYPE_CHECKING:
    from classifier.api import (
        Detector,
        Drift,
        Evaluation,
        Explanation,
        Promotion,
        feature_table,
        features_of,
        inject,
        load,
        promote,
        read_log,
        registered,
        rollback,
        simulate,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "BotsieveError",
    "BundleError",
    "Detector",
    "Drift",
    "Evaluation",
    "Explanation",
    "InputError",
    "LogError",
    "Promotion",
    "PromotionError",
    "feature_table",
    "features_of",
    "inject",
    "load",
    "promote",
    "read_log",
    "registered",
    "rollback",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("classifier.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
