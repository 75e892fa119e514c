"""`penstock migrate`, `api`, `keeper`, `io`, `worker`: one process each, for whoever starts them one by one."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from penstock.cli import engine_option
from penstock.stack.problem import Problem
from penstock.uncollected import uncollected

_GRACE_SECONDS = 10


def migrate() -> None:
    """Bring the database to the newest revision, and every webhook secret under the first of the secret keys."""
    import sqlalchemy.exc

    from penstock import settings
    from penstock.cli.commands import secrets
    from penstock.cli.database import opened_at
    from penstock.service.webhooks import resealing, secret_keys
    from penstock.store.migrate import upgrade

    loaded = settings.load()
    try:
        upgrade(loaded.database_url)
    except sqlalchemy.exc.OperationalError as error:
        raise SystemExit(f"penstock: The database is away: {str(error.orig).splitlines()[0]}") from None
    with opened_at(loaded.database_url) as db:
        try:
            if db.run(resealing.counts):
                secrets.reseal(db, secret_keys.of(loaded))
        except Problem as problem:  # the rest works without: whoever looks after it hears of it
            print(f"warning: {problem}", flush=True)
    print("the database is up to date", flush=True)


def api(
    host: Annotated[str, typer.Option(help="The address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=0, max=65_535)] = 8000,
) -> None:
    """Serve the HTTP API in this process."""
    with uncollected():
        import uvicorn

        from penstock import failpoint, logs, settings
        from penstock.api.http import connection
        from penstock.app import create_app
        from penstock.store import revision

    loaded = settings.load()
    revision.require(loaded.database_url)
    logs.configure(loaded.log_level)
    failpoint.arm(loaded.failpoints)
    app = create_app(loaded)  # before: a signal that comes meanwhile ends the process
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it is done: that shall end in 0
        signal.signal(number, lambda *_: None)
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **connection.options(loaded),
    )


def keeper() -> None:
    """Run the keeper: dispatch, reap, expire, finish. Several may run."""
    with uncollected():
        from penstock import keeper as keeping
        from penstock import logs, settings

    logs.configure(settings.load().log_level)
    keeping.main()


def io() -> None:
    """Run an io worker: validate and assemble."""
    _become_worker("io")


def worker(
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to serve, and its name; of an engine elsewhere its address.",
            metavar="[NAME=]FOLDER_OR_HUGGING_FACE_ID|[NAME=]FILE.gguf|NAME=URL",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Instead: be a host of this pool, whose versions take turns on this machine.", metavar="NAME"
        ),
    ] = None,
    engine: engine_option.Engine = engine_option.DEFAULT,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="Passed to the engine as it is; repeatable: --engine-arg=--seed=1")
    ] = None,
) -> None:
    """Run a GPU worker and its engine, or a host of a pool.

    Its engine's revision says which version of the model it serves; a new one gets no work before it is promoted. A
    pool's versions say themselves what they are started with.
    """
    if (model is None) is (pool is None):
        raise typer.BadParameter("say --model, or --pool for a pool's host.", param_hint="--model")
    if pool is not None:
        if engine_arg or engine != engine_option.DEFAULT:
            raise typer.BadParameter("--engine and --engine-arg are its versions' own.", param_hint="--pool")
        _become_worker("pool", f"--pool={pool}")
    arguments = [f"--engine-arg={argument}" for argument in engine_arg or ()]
    _become_worker("gpu", f"--model={model}", f"--engine={engine}", *arguments)


def _become_worker(kind: str, *arguments: str) -> None:
    # The platform never imports the worker's package: this process becomes it.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "penstock_worker", kind, *arguments])
