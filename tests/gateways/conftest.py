"""The fixtures of the gateways' tests."""

from tests.gateways.shared import inference, shared

__all__ = ["inference", "shared"]
