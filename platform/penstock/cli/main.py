"""`penstock`: one command, composed of families that each have a file of their own."""

from __future__ import annotations

import typer

from penstock.cli.commands import batches, keys, limits, models, secrets, servers, tenants, webhooks
from penstock.cli.commands.audit import audit
from penstock.cli.commands.demo import demo
from penstock.cli.commands.settings import settings
from penstock.cli.commands.up import up
from penstock.cli.commands.usage import usage

app = typer.Typer(
    name="penstock",
    help="A queue-based batch inference platform for LLMs.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(up)
app.command()(demo)
servers.install(app)
app.command()(settings)
app.command()(usage)
app.command()(audit)
app.add_typer(batches.app, name="batches")
app.add_typer(keys.app, name="keys")
app.add_typer(limits.app, name="limits")
app.add_typer(models.app, name="models")
app.add_typer(secrets.app, name="secrets")
app.add_typer(tenants.app, name="tenants")
app.add_typer(webhooks.app, name="webhooks")

if __name__ == "__main__":
    app()
