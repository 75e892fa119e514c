"""A far engine: what an engine elsewhere says of itself before anything is asked of it.

EngineAway      it can't be reached, or says that it can't work now: that may pass
NoFarEngine     it refuses our key, has not our model, or is no engine: that stays so until somebody changes it
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from penstock.domain.engines.profile import EngineProfile
from penstock_worker.engine.remote.engine_key import EngineKey, NoKey

MODELS: Final = "/v1/models"
_SECONDS: Final = 5.0
_MOST_LIST_BYTES: Final = 8 * 1024 * 1024
_MOST_NAMED: Final = 5
_NOT_THERE: Final = frozenset({404, 405, 501})


class EngineAway(Exception):
    """It does not work now; says why."""


class NoFarEngine(Exception):
    """It will not work as it is; says why."""


class FarEngine:
    """One address, and what is known of what answers there."""

    def __init__(
        self, url: str, model: str, profile: EngineProfile, key: EngineKey, session: aiohttp.ClientSession
    ) -> None:
        self.url = url
        self.model = model
        self.key = key
        self.session = session
        self._profile = profile
        self.names: Sequence[str] = (model,)
        """The model, and the adapters on it that it lists."""

    async def look(self) -> None:
        """Ask whether it works, takes our key and has our model. Raises EngineAway and NoFarEngine."""
        for path in self._profile.health_paths:
            status, _, _ = await self._get(path)
            if status >= 500 and status not in _NOT_THERE:
                raise EngineAway(f"the engine at {self.url} answers {status} to {path}")
            if status == 200:
                break
        if self._profile.lists_models:
            self._read_list(*await self._get(MODELS))

    async def is_well(self) -> bool:
        """Whether it works now: the first of its health pages that it has, else its list of models. Raises NoFarEngine
        if it does not take our key any more.
        """
        try:
            for path in (*self._profile.health_paths, MODELS):
                status, _, _ = await self._get(path)
                if status == 200 or self._profile.is_busy(status, None):
                    return True
                if status in (401, 403) and path == MODELS:
                    raise NoFarEngine(self._no_key(status))
                if status not in _NOT_THERE and status not in (401, 403):
                    return False
        except EngineAway:
            return False
        return False

    def _read_list(self, status: int, kind: str, body: bytes) -> None:
        """What its list of models says. Raises EngineAway and NoFarEngine."""
        said = f"the engine at {self.url} answers {status} to {MODELS}"
        if status in (401, 403):
            raise NoFarEngine(self._no_key(status))
        if status in _NOT_THERE:
            print(f"relay: {self.url} has no {MODELS}: whether it has {self.model!r} its answers will say", flush=True)
            return
        if self._profile.is_busy(status, None):  # it is there, and has enough to do
            return
        if status >= 500:
            raise EngineAway(said)
        if 300 <= status < 400:
            raise NoFarEngine(f"{said}: it leads elsewhere, and redirects are not followed")
        cards = _cards(body) if status == 200 else None
        if cards is None:
            what = "a web page" if "html" in kind or body.lstrip()[:1] == b"<" else f"{kind or 'nothing that is known'}"
            raise NoFarEngine(
                f"what answers at {self.url} is no OpenAI-compatible engine: {MODELS} is {what} ({status})"
            )
        names = [str(card["id"]) for card in cards]
        mine = {self.model, f"{self.model}:latest"}.intersection(names)  # Ollama lists its tags
        if not mine:
            some = ", ".join(sorted(names)[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
            raise NoFarEngine(f"the engine at {self.url} has {some or 'no model'}, not {self.model}")
        adapters = (str(card["id"]) for card in cards if card.get("parent") in mine)
        self.names = tuple(dict.fromkeys([self.model, *adapters]))

    def _no_key(self, status: int) -> str:
        has = "does not take the key that it was given" if self._has_key() else "wants a key, and none was given"
        return f"the engine at {self.url} {has} ({status}): PENSTOCK_ENGINE_KEY or --key-file says it"

    def _has_key(self) -> bool:
        try:
            return bool(self.key.header())
        except NoKey:
            return False

    async def _get(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body. Raises EngineAway and NoFarEngine."""
        try:
            async with self.session.get(
                self.url + path,
                headers=self.key.header(),
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                allow_redirects=False,
            ) as answer:
                body = await answer.content.read(_MOST_LIST_BYTES)
                while len(body) < _MOST_LIST_BYTES and (more := await answer.content.read(_MOST_LIST_BYTES)):
                    body += more
                return answer.status, answer.content_type, body
        except NoKey as error:
            raise NoFarEngine(str(error)) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise NoFarEngine(_untrusted(self.url, error.certificate_error)) from None
        except aiohttp.ClientConnectorSSLError as error:
            raise NoFarEngine(f"the engine at {self.url} speaks no TLS that this side does: {_words(error)}") from None
        except TimeoutError:
            raise EngineAway(f"the engine at {self.url} says nothing within {_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineAway(f"the engine at {self.url} can't be reached: {_words(error)}") from None


def _cards(body: bytes) -> list[dict[str, Any]] | None:
    """The models of a list; None if it is none."""
    try:
        cards = msgspec.json.decode(body)["data"]
        return cards if all(isinstance(card["id"], str) for card in cards) else None
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None


def _untrusted(url: str, error: Exception) -> str:
    why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    return f"the engine at {url} has a certificate that is not trusted: {why}; --ca-file names who may sign it"


def _words(error: Exception) -> str:
    """An error of the network, in short."""
    cause = getattr(error, "os_error", error)
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).strip()
