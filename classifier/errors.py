"""The errors botsieve raises on purpose.

    BotsieveError            a run that failed; the command line exits with 1
     └─ InputError           what the user gave cannot be used; exit 2
         ├─ LogError         a log file or its format
         └─ BundleError      a bundle that is damaged or does not fit this version
    ExportError (Botsieve)   a forest that cannot be exported exactly
    PromotionError (Botsieve) a model that may not become champion

Every message says what was wrong, where, and what to do about it, in one line.
"""


class BotsieveError(Exception):
    """A run that failed. The message is one line and says what to do."""

    exit_code = 1


class InputError(BotsieveError):
    """Something the user gave (an option, a file) cannot be used."""

    exit_code = 2


class LogError(InputError):
    """A log cannot be read: it is missing, damaged as a whole, or of no known format."""


class BundleError(InputError):
    """A bundle is incomplete, changed since it was written, or made for another feature set."""


class ExportError(BotsieveError):
    """A forest would not route every row as LightGBM does, so no graph is written."""


class PromotionError(BotsieveError):
    """A registered model failed the gate before `champion`; the message names what it failed."""
