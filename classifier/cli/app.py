"""The commands and their options. What a command does lies in a module of its own, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from classifier import __version__

app = typer.Typer(
    name="botsieve",
    help="Tells malicious bots from legitimate clients in front of LLM inference gateways.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

FLAG = ""
"""What the help shows as the value of an option that takes none; typer would show `<bool>`."""

Logs = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOG", help="Log files (plain, .gz or .zst, of any known format), or the folder of a journal."
    ),
]
BundleFolder = Annotated[Path, typer.Option("--bundle", metavar="DIR", help="Folder of the model.")]
Format = Annotated[
    str, typer.Option("--format", metavar="NAME", help="auto, combined, jsonl, csv, parquet, litellm or envoy.")
]
Columns = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--columns",
        metavar="FIELD=COLUMN",
        help="Event field, and the column or JSON key that holds it; may be repeated.",
    ),
]
Stamp = Annotated[
    str, typer.Option("--stamp", metavar="WHICH", help="What time stamps mark: auto, start or end of a request.")
]
Rejects = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--rejects", metavar="FILE", help="Where to note lines that cannot be read [default: beside the output]."
    ),
]
KeepRejected = Annotated[
    bool, typer.Option("--keep-rejected", metavar=FLAG, help="Note the content of rejected lines, too.")
]
MaxRejected = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--max-rejected", metavar="N", min=0, help="Fail when more than N lines are rejected."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar=FLAG, help="No progress bars and no remarks.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same result.")]
Threads = Annotated[
    int, typer.Option("--threads", metavar="N", min=0, help="Threads to use, at most one a core; 0 for as many.")
]
Registry = Annotated[Path, typer.Option("--registry", metavar="DIR", help="Where models:/… are registered.")]
Device = Annotated[str, typer.Option("--device", metavar="WHICH", help="auto, cpu or cuda.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"botsieve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", metavar=FLAG, callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tells malicious bots from legitimate clients in front of LLM inference gateways."""


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", metavar="LOG.jsonl", help="Where the log goes; .parquet works, too.")],
    duration: Annotated[float, typer.Option("--duration", metavar="S", help="Length of the log, s.")] = 6 * 3600.0,
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=1, help="Legitimate clients.")] = 400,
    attacks: Annotated[
        str, typer.Option("--attacks", metavar="NAMES", help="Families with commas, all or none.")
    ] = "all",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a labelled request log of an inference service.

    Example: `botsieve simulate --out log.jsonl --duration 7200 --clients 300 --attacks slow_botnet,distillation`
    """
    from classifier.cli.simulating import run

    run(out, duration, clients, attacks, seed, quiet)


@app.command()
def train(
    logs: Logs,
    bundle: BundleFolder,
    inject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--inject", metavar="NAMES", help="Weave attack families into the log (names with commas, or all)."
        ),
    ] = None,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--without", metavar="GROUP", help="Leave a feature group out; may be repeated."),
    ] = None,
    prior: Annotated[float, typer.Option("--prior", metavar="P", help="Expected share of malicious requests.")] = 0.01,
    challenge_budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--challenge-budget", metavar="SHARE", help="Legitimate requests challenged or blocked [0.002]."),
    ] = None,
    block_budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--block-budget", metavar="SHARE", help="Legitimate requests blocked [0.0001]."),
    ] = None,
    capacity: Annotated[
        int, typer.Option("--capacity", metavar="N", min=16, help="Clients that the tables are made for.")
    ] = 524_288,
    registry: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--registry", metavar="DIR", help="Log the bundle to MLflow there (mlruns); the first is champion."
        ),
    ] = None,
    solved_legitimate: Annotated[
        bool,
        typer.Option(
            "--solved-legitimate", metavar=FLAG, help="Of a journal: a solved challenge labels its request legitimate."
        ),
    ] = False,
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    seed: Seed = 0,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train a detector on labelled events, or on your own log with attackers woven in; write a bundle and its report.

    Example: `botsieve train access.log.gz --bundle model --inject all`
    """
    from classifier.cli.logs import LogOptions
    from classifier.cli.training import run
    from classifier.model.pipeline import TrainOptions

    log = LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet, solved_legitimate)
    run(
        log,
        TrainOptions(
            bundle,
            inject,
            tuple(without or ()),
            prior,
            challenge_budget,
            block_budget,
            capacity,
            registry,
            seed,
            threads,
        ),
    )


@app.command()
def evaluate(
    logs: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="LOG", help="Log files, or the folder of a journal; none with --protocol."),
    ] = None,
    bundle: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--bundle", metavar="DIR", help="Folder of the model; none with --protocol."),
    ] = None,
    protocol: Annotated[
        bool,
        typer.Option(
            "--protocol", metavar=FLAG, help="Make every table of docs/evaluation.md, from fixed seeds, in --out."
        ),
    ] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="DIR", help="With --protocol: folder for tables, plots, page, logs and bundle."),
    ] = None,
    plan: Annotated[
        str, typer.Option("--plan", metavar="NAME", help="With --protocol: full, or small (a few minutes).")
    ] = "full",
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", metavar="FILE", help="Write every figure as JSON."),
    ] = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--report", metavar="FILE", help="Write the evaluation as an HTML page."),
    ] = None,
    inject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--inject", metavar="NAMES", help="Weave attack families into the log first."),
    ] = None,
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    seed: Seed = 0,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle on labelled events that it has not seen.

    Example: `botsieve evaluate tomorrow.jsonl --bundle model --report evaluation.html`
    """
    from classifier.cli.evaluating import needed, run
    from classifier.cli.logs import LogOptions

    if protocol:
        from classifier.cli.protocolling import run as run_all

        asked = {"--json": json, "--report": report, "--inject": inject, "--seed": seed or None}
        run_all(logs, bundle, [name for name, value in asked.items() if value is not None], out, plan, threads, quiet)
        return
    logs, bundle = needed(logs, bundle, out)
    log = LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet)
    run(log, bundle, json, report, inject, seed, threads)


@app.command()
def score(
    logs: Logs,
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where scores go: .parquet, .csv or .jsonl.")],
    per: Annotated[str, typer.Option("--per", metavar="WHICH", help="request or client.")] = "request",
    device: Device = "auto",
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Score a log: decision, probability and reasons of each request, or of each client, the most suspicious first.

    Example: `botsieve score access.log --bundle model --per client --out clients.csv`
    """
    from classifier.cli.logs import LogOptions
    from classifier.cli.scoring import run

    log = LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet)
    run(log, bundle, out, per, device, threads)


@app.command()
def bench(
    bundle: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--bundle", metavar="DIR", help="Folder of the model [default: a random forest]."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure how long each engine takes on this machine, by the number of rows in a call.

    Example: `botsieve bench --bundle model`
    """
    from classifier.cli.benching import run

    run(bundle, device)


@app.command()
def whatif(
    logs: Logs,
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for whatif.json, whatif.png, whatif.html.")],
    capacity: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--capacity", metavar="TOKENS_PER_S", help="What the gateway's models make together [load of 60 %]."
        ),
    ] = None,
    speed: Annotated[float, typer.Option("--speed", metavar="TOKENS_PER_S", help="Of one answer alone.")] = 50.0,
    deadline: Annotated[
        float, typer.Option("--deadline", metavar="S", help="Served in time: done S after twice the time taken alone.")
    ] = 10.0,
    calibration: Annotated[
        float,
        typer.Option(
            "--calibration",
            metavar="SHARE",
            show_default=False,
            help="First part of the log, which tunes the limits [a third].",
        ),
    ] = 1 / 3,
    solves: Annotated[
        str, typer.Option("--solves", metavar="NAMES", help="Software or labelled kinds that solve challenges.")
    ] = "browser",
    attackers_solve: Annotated[
        str, typer.Option("--attackers-solve", metavar="WHICH", help="as-software, all or none.")
    ] = "as-software",
    inject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--inject", metavar="NAMES", help="Weave attack families into the log first."),
    ] = None,
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    seed: Seed = 0,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Forecast what enforcing would do: who would be touched, and what a gateway of stated capacity would serve.

    Example: `botsieve whatif gateway.jsonl --bundle model --out forecast --capacity 20000`
    """
    from classifier.cli.forecasting import run
    from classifier.cli.logs import LogOptions
    from classifier.whatif.run import Options

    log = LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet)
    options = Options(capacity, speed, deadline, calibration)
    run(log, bundle, out, options, solves, attackers_solve, inject, seed, threads)


@app.command()
def features(
    logs: Logs,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.parquet", help="Where the features go.")],
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Write the features of every request of a log, in the order of time.

    Example: `botsieve features access.log.zst --out features.parquet`
    """
    from classifier.cli.featuring import run
    from classifier.cli.logs import LogOptions

    run(LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet), out, threads)


@app.command()
def serve(
    bundle: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--bundle", metavar="DIR|models:/NAME@ALIAS", help="Folder of the model, or its registered name."),
    ] = None,
    challenger: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--challenger", metavar="DIR|models:/…", help="A second model, which is scored and never obeyed."),
    ] = None,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on [127.0.0.1]."),
    ] = None,
    port: Annotated[Optional[int], typer.Option("--port", metavar="N", help="Port to listen on [8460].")] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option("--device", metavar="WHICH", help="auto, cpu or cuda.")] = None,  # noqa: UP045
    mode: Annotated[Optional[str], typer.Option("--mode", metavar="WHICH", help="shadow or enforce [shadow].")] = None,  # noqa: UP045
    clock: Annotated[Optional[str], typer.Option("--clock", metavar="WHICH", help="server or event [server].")] = None,  # noqa: UP045
    journal: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--journal", metavar="DIR", help="Folder for the journal of what was processed."),
    ] = None,
    state: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--state", metavar="DIR", help="Folder for snapshots, lists and passes."),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", metavar="FILE.toml", help="Settings; docs/configuration.md lists them."),
    ] = None,
    registry: Registry = Path("mlruns"),
) -> None:
    """Answer a gateway's questions over HTTP.

    Example: `botsieve serve --bundle models:/botsieve@champion --mode enforce`
    """
    from classifier.cli.serving import run

    options = {"host": host, "port": port, "device": device, "mode": mode, "clock": clock, "journal": journal}
    run(bundle, challenger, registry, {**options, "state": state, "config": config})


@app.command()
def replay(
    logs: Logs,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the service listens.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where scores go: .parquet, .csv or .jsonl.")],
    speed: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--speed", metavar="X", help="Times the log's own speed [as fast as the service answers]."),
    ] = None,
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    quiet: Quiet = False,
) -> None:
    """Drive a service (started with `--clock event`) with a log and write what `score` would write.

    The token comes from `BOTSIEVE_TOKEN`.

    Example: `botsieve replay access.log --url http://127.0.0.1:8460 --out replayed.parquet`
    """
    from classifier.cli.logs import LogOptions
    from classifier.cli.replaying import run

    run(LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet), url, out, speed)


@app.command()
def drift(
    logs: Logs,
    bundle: BundleFolder,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", metavar="FILE", help="Write every figure as JSON."),
    ] = None,
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    rejects: Rejects = None,
    keep_rejected: KeepRejected = False,
    max_rejected: MaxRejected = None,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Say whether a log still looks like the traffic that a bundle was trained on. The verdict does not change the exit code.

    Example: `botsieve drift lastweek.jsonl.gz --bundle model --json drift.json`
    """
    from classifier.cli.drifting import run
    from classifier.cli.logs import LogOptions

    log = LogOptions(logs, format, columns, stamp, rejects, keep_rejected, max_rejected, quiet)
    run(log, bundle, json, threads)


@app.command()
def promote(
    what: Annotated[
        str,
        typer.Argument(metavar="models:/NAME/VERSION|rollback", help="The version, or `rollback` for the one before."),
    ],
    log: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--log", metavar="LOG", help="Recent traffic to hold budgets and families on; may be repeated."),
    ] = None,
    inject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--inject", metavar="NAMES", help="Weave attack families into that traffic, where it has no labels."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option("--margin", metavar="SHARE", min=0, max=1, help="By how much a family's share acted on may fall."),
    ] = 0.02,
    registry: Registry = Path("mlruns"),
    format: Format = "auto",
    columns: Columns = None,
    stamp: Stamp = "auto",
    seed: Seed = 0,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Make a registered model `champion` if it passes the gate, or go back to the champion before.

    Example: `botsieve promote models:/botsieve/3 --log lastweek.jsonl.gz --inject all`
    """
    from classifier.cli.logs import LogOptions
    from classifier.cli.promoting import run, run_rollback

    if what == "rollback":
        run_rollback(registry, quiet)
        return
    options = LogOptions(log or [], format, columns, stamp, None, False, None, quiet)
    run(what, options, inject, margin, registry, seed, threads)


@app.command()
def rollback(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The registered model.")] = "botsieve",
    registry: Registry = Path("mlruns"),
    quiet: Quiet = False,
) -> None:
    """Go back to the champion before; the same as `botsieve promote rollback`.

    Example: `botsieve rollback`
    """
    from classifier.cli.promoting import run_rollback

    run_rollback(registry, quiet, name)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for logs, bundle and report.")] = Path(
        "demo"
    ),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The whole way on simulated traffic: simulate, train, score another day, and read the result."""
    from classifier.cli.demonstrating import run

    run(out, seed, quiet)


@app.command()
def forget(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="An account or an address.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the service listens.")],
) -> None:
    """Remove a client from a service's state, snapshots and journal (the token comes from `BOTSIEVE_TOKEN`).

    Example: `botsieve forget 192.0.2.7 --url http://127.0.0.1:8460`
    """
    from classifier.cli.forgetting import run

    run(client, url)


@app.command()
def reload(
    bundle: Annotated[str, typer.Argument(metavar="DIR|models:/NAME@ALIAS", help="A bundle, or its registered name.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the service listens.")],
    registry: Registry = Path("mlruns"),
) -> None:
    """Let a running service decide by another bundle, without dropping a request (the token comes from `BOTSIEVE_TOKEN`).

    Example: `botsieve reload models:/botsieve@champion --url http://127.0.0.1:8460`
    """
    from classifier.cli.reloading import run

    run(bundle, url, registry)


@app.command()
def tail(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The gateway's access log, in JSON.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the service listens.")],
    once: Annotated[
        bool, typer.Option("--once", metavar=FLAG, help="Send what is there, from the beginning, and stop.")
    ] = False,
    position: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--position", metavar="FILE", help="Keeps how far the log was sent; a later start goes on there."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Tell a service how requests ended, from nginx's or Caddy's access log, as it is written.

    The token comes from `BOTSIEVE_TOKEN`.

    Example: `botsieve tail /var/log/nginx/botsieve.json --url http://127.0.0.1:8460`
    """
    from classifier.cli.tailing import run

    run(file, url, once, quiet, position)
