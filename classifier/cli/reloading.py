"""`botsieve reload`: lets a running service decide by another bundle."""

from __future__ import annotations

import sys
from pathlib import Path

from classifier.cli.replaying import Service
from classifier.cli.serving import folder_of


def run(bundle: str, url: str, registry: Path) -> None:
    """Tell the service the folder of a bundle, or of the one that `models:/…` names now; it has to see that folder, too."""
    folder = Path(folder_of(bundle, registry)).resolve()
    Service(url).post("/v1/model/reload", {"bundle": str(folder)})
    sys.stdout.write(f"{url} decides by {folder} from the next request on\n")
