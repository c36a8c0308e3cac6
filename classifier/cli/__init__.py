"""The command line: `botsieve`, also `python -m classifier`.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

INTERRUPTED = 130
ARENA_KIB = 128 * 1024
"""Address space that Arrow's allocator reserves at a time. Its own choice, 1 GiB, does not fit under a limit of a few GiB."""


def main() -> None:
    """Run the command line. Errors are one line on standard error; exit 2 for bad usage or input, 1 for a failed run."""
    os.environ.setdefault("MIMALLOC_ARENA_RESERVE", str(ARENA_KIB))
    # Beside other work, threads that spin at every barrier of LightGBM make training take four times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run one command and return its exit code. Errors that are no mistake of ours become a line on standard error."""
    from typer.exceptions import Abort, TyperException

    from classifier.cli.app import app
    from classifier.errors import BotsieveError

    try:
        code = app(arguments or ["--help"], prog_name="botsieve", standalone_mode=False)
    except TyperException as error:  # bad usage; typer by itself would draw a box of several lines
        where = getattr(getattr(error, "ctx", None), "command_path", "botsieve")
        return _fail(f"{error.format_message().rstrip('.')}{_meant(error)}; see {where} --help", 2)
    except BotsieveError as error:
        return _fail(str(error), error.exit_code)
    except (Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except MemoryError:
        return _fail("there is not enough memory for this run; give fewer logs at a time, or a lower --capacity", 1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _fail(f"{name}{error.strerror or error}; check the path and the space left", 1)
    if code == INTERRUPTED:
        return _fail("interrupted", INTERRUPTED)
    return int(code or 0) if arguments else 2


def _meant(error: Any) -> str:
    """Return a hint where an option and its value were written as one, as in `--per-client`."""
    option, _, value = str(getattr(error, "option_name", None) or "").rpartition("-")
    command = getattr(getattr(error, "ctx", None), "command", None)
    options = [each for each in getattr(command, "params", ()) if not getattr(each, "is_flag", True)]
    known = {name for each in options for name in each.opts}
    return f"; did you mean {option} {value}?" if option in known else ""


def _fail(message: str, code: int) -> int:
    print("botsieve: " + " ".join(message.split()), file=sys.stderr)
    return code
