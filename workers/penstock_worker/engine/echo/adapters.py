"""Adapters of the echo engine: it plays vLLM's loading of them, reads none, and says whose answer it is."""

from __future__ import annotations

from aiohttp import web

from penstock_worker.engine.echo import status_page
from penstock_worker.engine.echo.body import Body


class PlayedAdapters:
    """Those that are loaded; one more than there is room for is refused, where vLLM would push another one out."""

    def __init__(self, most: int, path: str | None) -> None:
        self._most = most
        self._load = path
        self._unload = path and path.replace("load", "unload")
        self.names: set[str] = set()

    def takes(self, path: str) -> bool:
        """Whether this is where they are loaded or unloaded."""
        return path in (self._load, self._unload)

    def change(self, path: str, body: Body) -> web.Response:
        """Load or unload one."""
        name, loads = str(body.get("lora_name")), path == self._load
        if loads == (name in self.names):
            message = f"The lora adapter '{name}' " + ("has already been loaded." if loads else "cannot be found.")
            return _refused(400 if loads else 404, message)
        if loads and len(self.names) >= self._most:
            return _refused(500, "No free lora slots")
        if loads:
            self.names.add(name)
        else:
            self.names.remove(name)
        return status_page.reply({})

    def speak(self, name: object, said: Body) -> None:
        """Say in an answer whose it is: its `model`, and in front of its texts."""
        if name not in self.names:
            return
        said["model"] = name
        for choice in said.get("choices", ()):
            if "text" in choice:
                choice["text"] = f"{name}: {choice['text']}"
            elif isinstance(message := choice.get("message"), dict):
                choice["message"] = message | {"content": f"{name}: {message['content']}"}


def _refused(status: int, message: str) -> web.Response:
    return status_page.reply({"error": {"message": message, "type": "BadRequestError", "code": status}}, status)
