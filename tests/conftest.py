"""What all tests share: the hypothesis profiles, and the real logs where they are at hand."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Both give the same examples at every run: a red test stays red until the code has changed.
settings.register_profile("dev", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=200, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of real logs where those do not lie beside the checkout."""
    if SHARED_DATA.is_dir():
        return
    absent = pytest.mark.skip(reason="the real logs are not at ../shared/data (data/README.md says where to get them)")
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real logs; only for tests marked `realdata`."""
    if not SHARED_DATA.is_dir():
        pytest.fail("mark this test with @pytest.mark.realdata: it asked for real logs that are not here")
    return SHARED_DATA
