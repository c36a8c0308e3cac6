"""`botsieve forget`: asks a service to remove a client."""

from __future__ import annotations

import sys

from classifier.cli.replaying import Service
from classifier.errors import InputError


def run(client: str, url: str) -> None:
    """Remove a client, an account or an address, from a service's state, snapshots and journal."""
    if not 0 < len(client) <= 255:
        raise InputError("CLIENT is an account or an address of 1 to 255 characters")
    known = Service(url).post("/v1/forget", {"client": client})["known"]
    sys.stdout.write("forgotten\n" if known else "nothing was known of it\n")
