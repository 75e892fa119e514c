"""A far engine: what an engine elsewhere says of itself before anything is asked of it.

EngineAway      it can't be reached, or says that it can't work now: that may pass
NoFarEngine     it refuses our key, has not our model, or is no engine: that stays so until somebody changes it
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from penstock.domain.engines.profile import EngineProfile
from penstock.domain.inference_endpoints import BATCHED
from penstock_worker.engine.remote.engine_key import EngineKey, NoKey

MODELS: Final = "/v1/models"
_SECONDS: Final = 5.0
_MOST_LIST_BYTES: Final = 8 * 1024 * 1024
_MOST_NAMED: Final = 5
_NOT_THERE: Final = frozenset({404, 405, 501})
_NOT_TOLD: Final = _NOT_THERE | {403}
"""A key may be good for answers, and not for the list."""


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
            status, kind, body = await self._get(MODELS)
            if status in _NOT_TOLD:
                await self._knock()
            else:
                self._read_list(status, kind, body)

    async def is_well(self) -> bool:
        """Whether it works now: by the first of its health pages that it has, else by its list of models.

        Raises NoFarEngine if it does not take our key any more.
        """
        try:
            for path in self._profile.health_paths:
                status, _, _ = await self._get(path)
                if status not in _NOT_TOLD and status != 401:
                    return status == 200 or self._profile.is_busy(status, None)
            status, _, _ = await self._get(MODELS)
        except EngineAway:
            return False
        if status == 401:
            raise NoFarEngine(self._no_key())
        return status < 500 or status in _NOT_THERE or self._profile.is_busy(status, None)

    async def _knock(self) -> None:
        """It does not say which models it has: does it answer at all? An empty request costs nothing.

        Raises EngineAway and NoFarEngine.
        """
        for path in BATCHED:
            status, _, _ = await self._get(path, b"{}")
            if status == 401:
                raise NoFarEngine(self._no_key())
            if status not in _NOT_THERE:
                print(f"relay: {self.url} does not list its models: its answers will say if it has {self.model!r}")
                return
        raise NoFarEngine(f"the engine at {self.url} has neither {MODELS} nor {BATCHED[0]}: is the address right?")

    def _read_list(self, status: int, kind: str, body: bytes) -> None:
        """What its list of models says. Raises EngineAway and NoFarEngine."""
        said = f"the engine at {self.url} answers {status} to {MODELS}"
        if status == 401:
            raise NoFarEngine(self._no_key())
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

    def _no_key(self) -> str:
        has = "does not take the key that it was given" if self._has_key() else "wants a key, and none was given"
        return f"the engine at {self.url} {has} (401): PENSTOCK_ENGINE_KEY or --key-file says it"

    def _has_key(self) -> bool:
        try:
            return bool(self.key.header())
        except NoKey:
            return False

    async def _get(self, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body of a page, or of an answer to a body. Raises EngineAway and NoFarEngine."""
        try:
            async with self.session.request(
                "GET" if body is None else "POST",
                self.url + path,
                data=body,
                headers={"content-type": "application/json", **self.key.header()},
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                allow_redirects=False,
            ) as answer:
                found = b""
                while len(found) < _MOST_LIST_BYTES and (more := await answer.content.readany()):
                    found += more
                return answer.status, answer.content_type, found
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
    number = getattr(cause, "errno", None)
    if number and number > 0:
        return os.strerror(number)
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).strip()
