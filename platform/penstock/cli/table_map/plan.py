"""The plan of a map: which rows of which table are asked what, and what their answers become. Nothing is sent yet."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.cli.own_files import keep_apart, part_of, plain_file
from penstock.cli.tables.answer_schema import AnswerSchema, load_schema
from penstock.cli.tables.column import as_json
from penstock.cli.tables.input_table import InputTable, open_table
from penstock.cli.tables.output_table import check_output
from penstock.cli.tables.prompt_template import PromptTemplate
from penstock.cli.tables.row_answers import NewColumns
from penstock.cli.tables.row_choice import RowChoice
from penstock.cli.tables.row_requests import MOST_LINES, RowPrompts, RowRequests, request_body
from penstock.cli.tables.table_format import TableFormat, format_of
from penstock.stack.problem import Problem

STDIN: Final = "-"


@dataclass(frozen=True)
class MapOptions:
    """What the flags say about table and answers."""

    table: str
    out: Path
    prompt: str
    prompt_option: str = "--prompt"
    """The flag that the prompt came by."""
    system: str | None = None
    schema: str | None = None
    format: TableFormat | None = None
    delimiter: str | None = None
    column: str = "answer"
    prefix: str = ""
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    max_tokens: int | None = None
    temperature: float | None = None
    more: tuple[tuple[str, Any], ...] = ()
    """Fields of each request's body."""
    batch_lines: int = MOST_LINES


@dataclass(frozen=True)
class MapPlan:
    """What is asked, once all of it was checked."""

    options: MapOptions
    table: InputTable
    choice: RowChoice
    prompts: RowPrompts
    schema: AnswerSchema | None
    new: NewColumns
    out_format: TableFormat
    source: Path
    """The table's file."""
    digest: str
    """Of the table's bytes."""

    def requests(self, model: str | None) -> RowRequests:
        """The requests of all chosen rows, to this model."""
        asked = self.options
        body = request_body(model, asked.max_tokens, asked.temperature, self.schema, dict(asked.more))
        return RowRequests(self.table, self.choice, self.prompts, body)

    def identity(self) -> dict[str, str]:
        """What must be the same for a later call to go on, by name; texts as digests."""
        asked = self.options
        return {
            "command": "map",
            "TABLE": f"{self.digest} {self.table.format} {self.table.delimiter or ''}",
            "--prompt": _digest(asked.prompt.encode()),
            "--system": _digest((asked.system or "").encode()),
            "--schema": _digest(as_json(self.schema.schema if self.schema else None).encode()),
            "--set": _digest(as_json(asked.more).encode()),
            "--max-tokens": str(asked.max_tokens),
            "--temperature": str(asked.temperature),
            "--limit": str(asked.limit),
            "--sample": f"{asked.sample} {asked.seed}",
        }

    def unchanged(self) -> None:
        """Raise Problem if the table is not what it was when it was looked through."""
        if digest_of(self.source, self.options.table) != self.digest:
            raise Problem(f"{self.options.table} was changed meanwhile: bring back what it was, or say --fresh.")


@contextmanager
def planned(options: MapOptions) -> Iterator[MapPlan]:
    """Read and check all that is local; raise Problem. What came through stdin is kept beside OUT meanwhile."""
    out_format = format_of(options.out)
    schema = load_schema(options.schema) if options.schema else None
    with _source(options) as source:
        name = "standard input" if options.table == STDIN else options.table
        table = open_table(source, name, format_of(source, options.format), options.delimiter)
        columns = [column.name for column in table.columns]
        prompts = RowPrompts(
            PromptTemplate(options.prompt, columns, options.prompt_option),
            PromptTemplate(options.system, columns, "--system") if options.system else None,
        )
        new = NewColumns(schema, options.column, options.prefix)
        check_output(out_format, table, new.columns)
        choice = RowChoice.of(table.count, options.limit, options.sample, options.seed)
        digest = digest_of(source, options.table)
        yield MapPlan(options, table, choice, prompts, schema, new, out_format, source, digest)


@contextmanager
def _source(options: MapOptions) -> Iterator[Path]:
    """The table's file; of stdin, which can be read once only, a copy."""
    if options.table != STDIN:
        source = Path(options.table)
        keep_apart([options.out], [source, *([Path(options.schema)] if options.schema else [])])
        plain_file(source, "give it as standard input, TABLE -")
        yield source
        return
    if options.format is None:
        raise Problem("Say --format: standard input has no extension.")
    copy = part_of(options.out, "table")
    try:
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise Problem(f"{copy} can't be written: {error.strerror}.") from None
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def digest_of(file: Path, name: str) -> str:
    """A hash of all bytes of a file; raise Problem."""
    try:
        with file.open("rb") as bytes_:
            return hashlib.file_digest(bytes_, "sha256").hexdigest()
    except OSError as error:
        raise Problem(f"{name} can't be read: {error.strerror}.") from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
