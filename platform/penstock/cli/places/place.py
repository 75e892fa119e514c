"""A place where lines are asked: a platform that is started here and ends with the command, or a server that runs.

with opened(options, say) as place:
    place.client      httpx, at /v1, with the key
    place.model       the name that lines ask; None where the server alone knows
    place.tend()      look after what was started here, some times a second; nothing to do for a server
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from penstock.cli.bounded import bounded
from penstock.cli.client import DEFAULT_DATA, connected, connected_with, is_far
from penstock.cli.places.options import PlaceOptions
from penstock.stack import child_environment
from penstock.stack.problem import Problem

_LOOK_SECONDS: Final = 20.0
_MOST_BYTES: Final = 16 * 1024**2
"""Of a list of models."""


@dataclass(frozen=True)
class OpenPlace:
    """Where lines are asked, while it is open."""

    client: httpx.Client
    model: str | None
    words: str
    """Where it is, for a person."""
    stays: bool
    """Whether what was sent goes on there when this command ends."""
    tend: Callable[[], None]


@contextmanager
def opened(options: PlaceOptions, say: Callable[[str], None]) -> Iterator[OpenPlace]:
    """Open the place that these options name, and close it: what was started here ends. Raises Problem."""
    options.check()
    if options.server:
        with connected(options.server, options.data or DEFAULT_DATA) as client:
            yield OpenPlace(client, options.model, options.server, stays=True, tend=lambda: None)
        return
    # Here, since `--server` needs none of it: it takes a second of CPU.
    from penstock.stack import ports
    from penstock.stack import up as stack

    name, source, engine = _model(options)
    wish = stack.StackOptions(
        data=options.folder, port=ports.free_port(), model=name, source=source, engine=engine,
        engine_args=options.engine_args, flower=False,
    )  # fmt: skip
    with (
        stack.platform(wish, os.environ, say) as running,
        connected_with(running.url, running.key) as client,
    ):
        yield OpenPlace(client, name, str(running.layout.data), stays=False, tend=running.tend)


def _model(options: PlaceOptions) -> tuple[str, str | None, str]:
    """Name, source and kind of engine of what is started here."""
    from penstock.stack.chosen_model import TINY, parse_model

    if options.engine_url:
        name = _model_there(options.engine_url, options.model)
        return name, options.engine_url.rstrip("/"), options.profile.name
    given = options.model or TINY
    name, source = parse_model(given, options.profile)
    named = "=" in given and not Path(given).is_dir()
    # As vLLM does: unless it is named, a model is called what it was asked for as, and lines may say that.
    return (name if named or source is None else given), source, options.engine


def _model_there(url: str, wanted: str | None) -> str:
    """The name of the model that an engine has, or of the one that is wanted; raise Problem if it has it not."""
    key = _engine_key()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        far = is_far(httpx.URL(url).host)
        with (
            httpx.Client(headers=headers, timeout=_LOOK_SECONDS, trust_env=far) as client,
            client.stream("GET", f"{api_root(url)}/v1/models") as answer,
        ):
            answer.raise_for_status()
            names = [str(one["id"]) for one in json.loads(bounded(answer, _MOST_BYTES))["data"]]
    except httpx.HTTPStatusError as error:
        if wanted and error.response.status_code in (403, 404, 405):  # it lists none; its worker looks closer
            return wanted
        raise Problem(f"The engine at {url} answers {error.response.status_code} to /v1/models.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Problem(f"Can't reach an engine at {url}: {error}.") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Problem(f"What answers at {url} is no OpenAI-compatible engine: its /v1/models lists none.") from None
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    there = f"The engine at {url} has {', '.join(names) or 'no model'}"
    raise Problem(f"{there}, not {wanted}." if wanted else f"{there}: say --model NAME.")


def _engine_key() -> str | None:
    """The key of an engine that runs elsewhere; raise Problem if its file can't be read."""
    file = os.environ.get(child_environment.ENGINE_KEY_FILE)
    if not file:
        return os.environ.get(child_environment.ENGINE_KEY)
    try:
        return Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"The key file {file} ({child_environment.ENGINE_KEY_FILE}) can't be read: {error}.") from None


def api_root(url: str) -> str:
    """An engine's address without the `/v1` that people write behind it."""
    return url.rstrip("/").removesuffix("/v1")
