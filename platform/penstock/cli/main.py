"""`penstock`: one command, composed of families that each have a file of their own."""

from __future__ import annotations

import typer

from penstock.cli import servers
from penstock.cli.demo import demo
from penstock.cli.up import up

app = typer.Typer(
    name="penstock",
    help="A queue-based batch inference platform for LLMs.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(up)
app.command()(demo)
servers.install(app)

if __name__ == "__main__":
    app()
