"""`python -m serving`: what `botsieve serve` starts. Options win over `BOTSIEVE_*`, and that over the file of `--config`."""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from classifier.errors import BotsieveError, InputError
from serving.settings import CONFIG_VARIABLE, Settings, load_settings

if TYPE_CHECKING:
    from serving.hot import Hot

log = logging.getLogger("botsieve.serving")

COLLECTOR = (2_000, 20, 1_000)
"""Thresholds of Python's garbage collector. A full collection looks at every request in flight, tens of ms at a million of them;
what a request makes is freed without it."""
_HUGE_PAGES = "NUMPY_MADVISE_HUGEPAGE"


def main(arguments: list[str] | None = None) -> int:
    """Run the service until it is told to stop; return the exit code."""
    try:
        given = vars(_options().parse_args(arguments))
        config = given.pop("config")
        if config is not None:
            if not Path(config).is_file():
                raise InputError(f"--config {config} is no file; check the path")
            os.environ[CONFIG_VARIABLE] = config
        return serve(load_settings(**given))
    except BotsieveError as error:
        print("botsieve: " + " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code


def serve(settings: Settings) -> int:
    """Load the bundle and serve it."""
    os.umask(0o077)  # there are addresses, accounts and paths in what is written
    # numpy asks for huge pages. The first touch of one takes ms, and each of the first clients touches several; small ones
    # cost the same in the end. numpy reads this when it is imported, which happens below.
    os.environ.setdefault(_HUGE_PAGES, "0")
    import uvicorn

    from classifier.features.hashing import secret_from_environment
    from classifier.model.judge import Judge
    from serving.app import create_app
    from serving.disk import lock
    from serving.logs import configure
    from serving.snapshot import Snapshots

    configure(settings.log_level)
    for folder in {path.resolve() for path in (settings.state, settings.journal) if path is not None}:
        lock(folder)  # until the process ends
    if settings.is_open:
        log.warning("anyone who can connect is served: set BOTSIEVE_TOKEN", extra={"host": settings.host})
    gc.set_threshold(*COLLECTOR)
    model = Judge.load(str(settings.bundle), device=settings.device)
    challenger = None if settings.challenger is None else Judge.load(str(settings.challenger), device=settings.device)
    restored = None
    if settings.state is not None:
        snapshots = Snapshots(settings.state, secret_from_environment())
        restored = snapshots.restore(model.sizes, settings.pending_limit)
    # Said in one line here; within uvicorn it would be a traceback, or lines of its log.
    for name in ("port", "grpc_port"):
        if getattr(settings, name):
            _check_free(settings.host, getattr(settings, name), name)
    app = create_app(settings, model, challenger=challenger, restored=restored)
    config = uvicorn.Config(app, **uvicorn_options(settings, app.hot))
    server = uvicorn.Server(config)
    if app.desk is not None:
        app.desk.stopping = lambda: server.should_exit
    server.run()
    return 0 if server.started else 1


def _check_free(host: str, port: int, name: str = "port") -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and name == "port":
            return  # a name may have other addresses: uvicorn tries each
        reason = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise InputError(f"{name} {port} of {host} cannot be listened on ({reason}); choose another") from error


class _Parser(argparse.ArgumentParser):
    """Bad usage is an error of one line, as in every other command."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def uvicorn_options(settings: Settings, hot: Hot) -> dict[str, Any]:
    """Return what uvicorn is told: one process, and no header that says who the client is."""
    from serving.direct import direct

    return {
        "http": direct(settings, hot),
        "loop": "auto",
        "host": settings.host,
        "port": settings.port,
        "proxy_headers": False,  # uvicorn would believe X-Forwarded-For of any peer on loopback
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "date_header": False,
        "ws": "none",
        "backlog": 2048,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 10,
    }


def _options() -> argparse.ArgumentParser:
    parser = _Parser(prog="botsieve serve", description="Serve a bundle over HTTP.")
    parser.add_argument("--config", metavar="FILE.toml", help="settings; see docs/configuration.md")
    for name in ("bundle", "challenger", "host", "journal", "state"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--port", type=int)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--mode", choices=("shadow", "enforce"))
    parser.add_argument("--clock", choices=("server", "event"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
