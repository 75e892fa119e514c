"""`penstock demo`: everything once, from a JSONL file to its answers, on a platform of its own that then stops."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli import engine_option, printing
from penstock.cli.commands.up import Data, reporting_problems, stopping_on_signals
from penstock.cli.exit_status import INTERRUPTED
from penstock.domain.work.batch_words import counted
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.cli.mailbox import Mailbox
    from penstock.stack.up import Running

LINES: Final = 240
POLL_SECONDS: Final = 0.5
PLAIN_NEWS_SECONDS: Final = 5.0
WEBHOOK_SECONDS: Final = 30.0
ENDED: Final = ("completed", "failed", "expired", "cancelled")
SUBJECTS: Final = ("a reservoir", "a turbine", "the tide", "a queue", "a lantern", "the north wind", "a bridge", "snow")
TASKS: Final = (
    "Describe {} in one sentence.",
    "Write a short poem about {}.",
    "What would a child ask about {}?",
    "Name three uses of {}.",
    "Explain {} to an engineer.",
)


def demo(
    data: Data = Path("data/demo"),
    lines: Annotated[int, typer.Option(help="Requests in the batch.", min=1)] = LINES,
    engine: engine_option.Engine = engine_option.DEFAULT,
    port: Annotated[
        int, typer.Option(help="The port of the API; another free one if it is taken.", min=0, max=65_535)
    ] = 8000,
) -> None:
    """Start the platform, send a batch of chat requests, check and show what comes back, stop."""
    import httpx

    from penstock.cli.mailbox import Mailbox
    from penstock.stack import ports
    from penstock.stack import up as stack

    with reporting_problems(say), stopping_on_signals(_interrupted):
        wish = stack.StackOptions(data=data, port=ports.preferred_port(port), engine=engine, ready_seconds=600)
        with Mailbox() as mailbox, stack.platform(wish, _allowing_loopback(os.environ), say) as running:
            try:
                facts = _show(running, lines, mailbox)
            except (httpx.HTTPError, OSError, KeyError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
                raise Problem(f"{why} (logs: {running.layout.logs})") from error
        _print_table(running, facts)


def _allowing_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with webhooks to this machine: the demo receives one itself."""
    allowed = [environment.get("PENSTOCK_OUTBOUND_ALLOW", ""), "127.0.0.1/32"]
    return {**environment, "PENSTOCK_OUTBOUND_ALLOW": ",".join(filter(None, allowed))}


def _show(running: Running, lines: int, mailbox: Mailbox) -> dict[str, str]:
    """The demo itself: upload, batch, watch, its webhook, download, check, and one job."""
    import openai

    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, timeout=60)
    sent = running.layout.data / "demo-input.jsonl"
    sent.write_text("".join(json.dumps(line) + "\n" for line in requests(running.model, lines)))
    try:
        say(f"uploading {sent} ({lines} chat requests) with the OpenAI SDK {openai.__version__}")
        with sent.open("rb") as file:
            uploaded = client.files.create(file=file, purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"webhook": {"url": mailbox.url}},
        )
        secret = (batch.model_extra or {})["webhook"]["secret"]
        began = time.monotonic()
        say(f"created {batch.id}")
        batch = _watch(running, client, batch.id, lines)
        seconds = time.monotonic() - began
        if batch.status != "completed" or batch.output_file_id is None:
            raise Problem(f"The batch ended as {batch.status}: {_why(batch)} (logs: {running.layout.logs})")
        event = _unwrap(running, client, mailbox, secret, batch.id)
        received = running.layout.data / "demo-output.jsonl"
        received.write_bytes(client.files.content(batch.output_file_id).content)
    except openai.OpenAIError as error:
        raise Problem(f"The API refused the demo: {error} (logs: {running.layout.logs})") from error
    check(sent, received)
    say(f"checked: {lines} answers, each line once, in the order of the file")
    answer = _one_job(running)
    tokens = batch.usage.total_tokens if batch.usage else 0
    return {
        "lines": f"{lines:,}",
        "failed": f"{batch.request_counts.failed if batch.request_counts else 0:,}",
        "tokens": f"{tokens:,}",
        "seconds": f"{seconds:.1f}",
        "lines/s": f"{lines / seconds:.1f}",
        "requests": str(sent),
        "answers": str(received),
        "webhook": event,
        "one job said": answer,
    }


def _unwrap(running: Running, client: Any, mailbox: Mailbox, secret: str, batch: str) -> str:
    """Receive the batch's webhook, and have OpenAI's SDK verify it; the event in words."""
    import openai

    letter = mailbox.next(WEBHOOK_SECONDS)
    if letter is None:
        raise Problem(f"No webhook came within {WEBHOOK_SECONDS:.0f} s of the end (logs: {running.layout.logs})")
    try:
        event = client.webhooks.unwrap(*letter, secret=secret)
    except (openai.InvalidWebhookSignatureError, ValueError) as error:
        raise Problem(f"The webhook is not signed as it should be: {error}") from error
    if event.data.id != batch:
        raise Problem(f"The webhook is about {event.data.id}, not about {batch}.")
    say(f"received its webhook: {event.type}, signature verified by openai.webhooks.unwrap()")
    return f"{event.type}, {event.id}, verified"


def requests(model: str, count: int) -> Iterator[dict[str, Any]]:
    """Chat requests of different kinds and lengths."""
    for number in range(1, count + 1):
        task = TASKS[number % len(TASKS)].format(SUBJECTS[number // len(TASKS) % len(SUBJECTS)])
        yield {
            "custom_id": f"demo-{number:05}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "messages": [
                    {"role": "system", "content": "You answer briefly."},
                    {"role": "user", "content": task},
                ],
                "max_tokens": 16 + number * 7 % 48,
            },
        }


def _watch(running: Running, client: Any, batch_id: str, lines: int) -> Any:
    """Poll the batch until it ends, with a bar on a terminal and a line now and then elsewhere."""
    began = time.monotonic()
    with _progress(lines) as show:
        while True:
            running.tend()
            batch = client.batches.retrieve(batch_id)
            counts = batch.request_counts
            answered, failed = (counts.completed, counts.failed) if counts else (0, 0)
            tokens = batch.usage.output_tokens if batch.usage else 0
            elapsed = max(time.monotonic() - began, 1e-6)
            show(batch.status, answered, failed, tokens, elapsed, batch.status in ENDED)
            if batch.status in ENDED:
                return batch
            if elapsed > 1_800:
                raise Problem(f"The batch is still {batch.status} after 30 minutes (logs: {running.layout.logs})")
            time.sleep(POLL_SECONDS)


@contextmanager
def _progress(lines: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console()
    if not printing.is_live(console):
        told = [-PLAIN_NEWS_SECONDS]

        def plain(status: str, answered: int, failed: int, tokens: int, elapsed: float, last: bool) -> None:
            if last or elapsed - told[0] >= PLAIN_NEWS_SECONDS:
                told[0] = elapsed
                pace = speed(lines, answered + failed, tokens, elapsed)
                say(f"{status}: {_ended(lines, answered, failed)} · {pace}")

        yield plain
        return
    state, words = (TextColumn(text, markup=False) for text in ("{task.description:<11}", "{task.fields[words]}"))
    with Progress(state, BarColumn(), words, console=console) as bar:
        task = bar.add_task("validating", total=lines, words="")

        def live(status: str, answered: int, failed: int, tokens: int, elapsed: float, last: bool) -> None:
            done = answered + failed
            pace = f"{_ended(lines, answered, failed)} · {speed(lines, done, tokens, elapsed)}"
            bar.update(task, description=status, completed=done, words=pace)

        yield live


def _ended(lines: int, answered: int, failed: int) -> str:
    return counted(lines, answered, failed)


def speed(lines: int, done: int, tokens: int, elapsed: float) -> str:
    """Lines and tokens a second so far, and the time that is left at that speed."""
    left = f"{(lines - done) * elapsed / done:.0f} s left" if done else "time left unknown"
    return f"{done / elapsed:.1f} lines/s · {tokens / elapsed:.0f} tokens/s · {left}"


def check(sent: Path, received: Path) -> None:
    """Raise Problem unless every request has exactly one good answer, in the order of the requests."""
    asked = [json.loads(line)["custom_id"] for line in sent.read_text().splitlines()]
    answers = [json.loads(line) for line in received.read_bytes().splitlines()]
    answered = [answer["custom_id"] for answer in answers]
    if sorted(answered) != sorted(asked):
        missing, doubled = len(set(asked) - set(answered)), len(answered) - len(set(answered))
        raise Problem(f"{missing} answers are missing and {doubled} came twice: compare {sent} and {received}.")
    if answered != asked:
        raise Problem(f"The answers are not in the order of the requests: compare {sent} and {received}.")
    if bad := [answer["custom_id"] for answer in answers if answer["response"]["status_code"] != 200]:
        raise Problem(f"{len(bad)} answers are errors, the first is {bad[0]}: see {received}.")


def _one_job(running: Running) -> str:
    """Send one request as a job and wait for its answer."""
    import httpx

    body = {"messages": [{"role": "user", "content": "Say something about water."}], "max_tokens": 24}
    job = {"model": running.model, "endpoint": "/v1/chat/completions", "body": body}
    headers = {"authorization": f"Bearer {running.key}"}
    with httpx.Client(base_url=f"{running.url}/v1", headers=headers, timeout=90, trust_env=False) as client:
        state = client.post("/jobs", json=job).raise_for_status().json()
        say(f"created {state['id']} (POST /v1/jobs), waiting for its answer")
        for _ in range(10):
            if state["status"] in ENDED:
                break
            state = client.get(f"/jobs/{state['id']}", params={"wait": 30}).raise_for_status().json()
    if state["status"] != "completed" or not state.get("results"):
        raise Problem(f"The job ended as {state['status']} (logs: {running.layout.logs})")
    text = state["results"][0]["response"]["body"]["choices"][0]["message"]["content"]
    say(f"it said: {text!r}")
    return repr(text)[:60]


def _why(batch: Any) -> str:
    first = batch.errors.data[0].message if batch.errors and batch.errors.data else None
    counts = batch.request_counts
    return first or (f"{counts.failed} of {counts.total} lines failed" if counts else "no reason is given")


def _print_table(running: Running, facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    rows = {
        **facts,
        "console": f"{running.url}/console, log in with the API key",
        "API docs": f"{running.url}/docs",
        "Flower": f"{running.flower_url}, user penstock, password in {running.layout.flower_password_file}",
        "API key": f"in {running.layout.key_file}",
        "logs": str(running.layout.logs),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(table)
    say(f"done; `penstock up --data {running.layout.data}` starts it again and stays: then open {running.url}/console")


def _interrupted(words: str) -> None:
    say(words)
    sys.exit(INTERRUPTED)


def say(words: str) -> None:
    """Say what is being done."""
    printing.say(f"[demo] {words}")
