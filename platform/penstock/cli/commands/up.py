"""`penstock up`: the whole platform on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli import engine_option, printing
from penstock.domain.engines.profiles import PROFILES
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.stack.up import Running

Data = Annotated[Path, typer.Option(help="The folder of everything that is kept.", envvar="PENSTOCK_DATA")]


def up(
    data: Data = Path("data/up"),
    port: Annotated[int, typer.Option(help="The port of the API.", min=0, max=65_535)] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME=]FOLDER_OR_HUGGING_FACE_ID or FILE.gguf, NAME=URL, `tiny` or `tiny-embed`; `tiny` unless told. "
            "Several take turns on this machine, as the pool `local`: a .gguf file of them is llama.cpp's."
        ),
    ] = None,
    awake: Annotated[int, typer.Option(help="So many of several models are awake at once.", min=1)] = 1,
    engine: engine_option.Engine = engine_option.DEFAULT,
    engine_arg: Annotated[list[str] | None, typer.Option(help="An argument for the engine; repeatable.")] = None,
    flower_port: Annotated[
        int | None, typer.Option(help="Flower's port; 5555 or a free one unless told.", min=0, max=65_535)
    ] = None,
    redis: Annotated[bool, typer.Option(help="Hints over Valkey, and Flower; without, workers ask Postgres.")] = True,
) -> None:
    """Start the whole platform on this machine and stay until Ctrl-C."""
    # Here, since every command of the CLI imports this module: it takes a second of CPU.
    from penstock.stack import local_pool
    from penstock.stack import up as stack

    with reporting_problems(say), stopping_on_signals(say):
        (first, *more) = local_pool.named(model or ["tiny"], PROFILES[engine])
        arguments = tuple(engine_arg or ())
        if arguments and any(one.engine != first.engine for one in more):
            raise Problem("--engine-arg is for one engine, and these models have several: start a pool instead.")
        wish = stack.StackOptions(
            data=data, port=port, host=host, model=first.name, source=first.source, engine=first.engine,
            engine_args=arguments, more=tuple(more), awake=awake, flower_port=flower_port, redis=redis,
        )  # fmt: skip
        with stack.platform(wish, os.environ, say) as running:
            _greet(running)
            while True:
                running.tend()
                time.sleep(stack.TEND_SECONDS)


def _greet(running: Running) -> None:
    layout = running.layout
    if running.key_made:
        key = f"{running.key}  (shown once, kept in {layout.key_file})"
    elif os.environ.get("PENSTOCK_BOOTSTRAP_KEY"):
        key = "the one in PENSTOCK_BOOTSTRAP_KEY"
    else:
        key = f"in {layout.key_file}"
    who = ", ".join(running.models)
    turns = "" if len(running.models) == 1 else " (they take turns: `penstock pools show local`)"
    say(f"console: {running.url}/console  (log in with the API key)")
    say(f"ready: {running.url}/v1 answers for the model{'s' * (len(running.models) > 1)} {who}{turns}")
    say(f"  API key   {key}")
    say(f"  API docs  {running.url}/docs")
    if running.flower_url:
        say(f"  Flower    {running.flower_url}  (user penstock, password in {layout.flower_password_file})")
    say("  Ctrl-C stops it")


def say(words: str) -> None:
    """Say what is being done."""
    printing.say(f"[up] {words}")


class Stopped(BaseException):
    """SIGINT or SIGTERM came."""


@contextmanager
def stopping_on_signals(say: Callable[[str], None]) -> Iterator[None]:
    """Leave the `with` quietly at the first SIGINT or SIGTERM; later ones don't disturb the clean-up.

    A terminal that closes (SIGHUP) ends it too, unless it was to be ignored (nohup).
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, stop)
    try:
        yield
    except Stopped as stopped:
        say(f"stopped ({stopped})")


@contextmanager
def reporting_problems(say: Callable[[str], None]) -> Iterator[None]:
    """Turn a Problem into one line and exit status 1."""
    try:
        yield
    except Problem as problem:
        say(f"FAILED: {problem}")
        sys.exit(1)
