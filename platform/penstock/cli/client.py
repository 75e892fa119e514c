"""The CLI's way to the API: where it is, with which key, and one clear line when that does not work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.exit_status import INTERRUPTED
from penstock.cli.printing import remark
from penstock.domain.api_errors import PenstockError
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8000"
TIMEOUT_SECONDS: Final = 60.0

Url = Annotated[str, typer.Option("--url", envvar="PENSTOCK_URL", help="Where the API is.")]
Data = Annotated[
    Path,
    typer.Option("--data", envvar="PENSTOCK_DATA", help="The folder of `penstock up`: its `key` is used."),
]
DEFAULT_DATA: Final = Path("data/up")


@contextmanager
def told() -> Iterator[None]:
    """Say what went wrong in one line, and exit with 1."""
    try:
        yield
    except (Problem, PenstockError) as error:
        remark(f"penstock: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def api_key(data: Path) -> str:
    """PENSTOCK_API_KEY, else what the data folder keeps."""
    if key := os.environ.get("PENSTOCK_API_KEY"):
        return _ascii(key, "PENSTOCK_API_KEY")
    file = data.expanduser() / "key"
    try:
        return _ascii(file.read_text(errors="replace").strip(), str(file))
    except FileNotFoundError:
        why = f"No API key: set PENSTOCK_API_KEY, or give the folder of `penstock up` with --data (no {file})."
        raise Problem(why) from None
    except OSError as error:
        raise Problem(f"The API key in {file} can't be read: {error.strerror}.") from None


def _ascii(key: str, where: str) -> str:
    if not key.isascii() or not key.isprintable():
        raise Problem(f"What {where} holds is no API key.")
    return key


@contextmanager
def connected(url: str, data: Path) -> Iterator[httpx.Client]:
    """A client with the key of the environment or the data folder; failures to reach the server become Problems."""
    with connected_with(url, api_key(data)) as client:
        yield client


@contextmanager
def connected_with(url: str, key: str) -> Iterator[httpx.Client]:
    """A client with this key; failures to reach the server become Problems."""
    import httpx

    from penstock.cli.bounded import Bounded

    base = _base(url)
    headers, far = {"authorization": f"Bearer {key}"}, is_far(base.host)
    try:
        with Bounded(base_url=base, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=far) as client:
            yield client
    except httpx.TimeoutException:
        raise Problem(f"{url} does not answer in time.") from None
    except httpx.TransportError as error:
        raise Problem(f"Can't reach {url}: {error}. Is it running, and is PENSTOCK_URL right?") from None
    except httpx.DecodingError as error:
        raise Problem(f"{url} answers what can't be read: {error}.") from None
    except httpx.InvalidURL as error:
        raise Problem(f"This can't be asked of {url}: {error}.") from None


def is_far(host: str) -> bool:
    """Whether a proxy that the environment names is meant for this host: it is not for servers on this machine."""
    return host not in ("127.0.0.1", "::1", "localhost")


def _base(url: str) -> httpx.URL:
    """With /v1, which may stand in the address already, as in those that OpenAI's SDK takes."""
    import httpx

    try:
        return httpx.URL(f"{url.rstrip('/').removesuffix('/v1')}/v1")
    except (httpx.InvalidURL, UnicodeError):
        raise Problem(f"{url!r} is no address of an API.") from None


def ask(client: httpx.Client, method: str, path: str, **more: Any) -> Any:
    """Call the API; the JSON of its answer. Raises Problem with the API's own words if it refuses.

    And for a path of which a client would leave out parts: an id or name like `../files/x` is nothing's.
    """
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise Problem(f"There is nothing of this name: no part of one between slashes is '.' or '..' ({path}).")
    return read(client.request(method, path, **more))


def read(answer: httpx.Response) -> Any:
    """The JSON object of an answer. Raises Problem with the API's own words if it refuses.

    What the object lacks is a Problem once it is asked for: another server answered.
    """
    check(answer)
    wrong = not_penstock(answer)
    try:
        found = json.loads(answer.content, object_hook=lambda values: _Document(values, wrong))
    except (ValueError, RecursionError):
        raise Problem(wrong) from None
    if not isinstance(found, dict):
        raise Problem(wrong)
    return found


class _Document(dict[str, Any]):
    def __init__(self, values: dict[str, Any], wrong: str) -> None:
        super().__init__(values)
        self._wrong = wrong

    def __missing__(self, name: str) -> Any:
        raise Problem(self._wrong)


def check(answer: httpx.Response) -> None:
    """Raise Problem unless the answer is a success."""
    if answer.is_success:
        return
    try:
        message = json.loads(answer.text)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        message = not_penstock(answer)
    if answer.status_code == 401:
        message = "The API refuses this key: look at PENSTOCK_API_KEY, or at the key in the folder given with --data."
    raise Problem(message)


def not_penstock(answer: httpx.Response) -> str:
    """For a person: who answered that, and that it is no Penstock."""
    return f"{answer.request.url} answered {answer.status_code}, but not as Penstock does."
