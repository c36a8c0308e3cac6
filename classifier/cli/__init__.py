"""The command line: `botsieve`, also `python -m classifier`.

Nothing heavy is imported until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Errors are one line on standard error; exit 2 for bad usage or input, 1 for a failed run."""
    from classifier.cli.app import app
    from classifier.errors import BotsieveError

    try:
        app()
    except BotsieveError as error:
        print(f"botsieve: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        print("botsieve: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"botsieve: {name}{error.strerror or error}; check the path and the space left", file=sys.stderr)
        sys.exit(1)
