"""`botsieve evaluate --protocol`."""

from __future__ import annotations

from pathlib import Path

from classifier.cli.terminal import OUTPUT, say, threads_of
from classifier.errors import InputError


def run(
    logs: list[Path] | None,
    bundle: Path | None,
    others: list[str],
    out: Path | None,
    plan: str,
    threads: int,
    quiet: bool,
) -> None:
    """Run the protocol and write its tables, plots and page. `others` are options for a log that were given, too."""
    from classifier.evaluation.document import write
    from classifier.evaluation.plan import PLANS
    from classifier.evaluation.protocol import run_protocol

    if logs or bundle is not None:
        raise InputError("--protocol simulates its own logs and trains its own bundle: give no LOG and no --bundle")
    if others:
        raise InputError(f"{others[0]} is for a log; --protocol takes --out, --plan, --threads and --quiet")
    if out is None:
        raise InputError("Missing option '--out'; see botsieve evaluate --help")
    if plan not in PLANS:
        raise InputError(f"unknown plan {plan!r}; known are {', '.join(PLANS)}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    result = run_protocol(PLANS[plan], out, threads_of(threads), lambda what: say(f"{what} …", quiet))
    write(result, out)
    OUTPUT.print("Recall per client, by grade of attackers and share of legitimate clients accused:")
    for line in result["comparison"]["against_best"]:
        OUTPUT.print(
            f"{line['grade']:8} {100 * line['rate']:g} %: {100 * line['recall']:.1f} %, "
            f"best baseline {100 * line['best_recall']:.1f} % ({line['best']})",
            markup=False,
        )
    say(f"tables, plots and page: {out / 'evaluation.html'} ({result['run']['minutes']:g} minutes)", quiet)
