"""A browser without a window, told what to do by the Chrome DevTools Protocol.

Source: "Chrome DevTools Protocol", https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Page:
    """A page in a browser; ``events`` are what happened in it, by method, as far as it was waited for."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._session: str | None = None
        self._count, self._rest = 0, b""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
        """The browser's answer to a command."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            if "method" in message:
                self.events.append((message["method"], message["params"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401
        """What an expression comes to in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, address: str, then: str) -> None:
        """Go to an address and wait for an expression that is a promise."""
        self.call("Page.navigate", url=address)
        # The page's scripts are asked once it is there.
        self.evaluate(
            f"new Promise(done => document.readyState == 'complete' ? done() : onload = done).then(() => {then})"
        )

    def of(self, method: str) -> list[dict[str, Any]]:
        """What was told of the events of a kind."""
        return [params for name, params in self.events if name == method]

    def picture(self, path: Path) -> None:
        """Save what is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def installed_browser() -> str:
    """The program of a browser; the test is skipped where none is installed."""
    for program in filter(None, map(shutil.which, BROWSERS)):
        return program
    pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """An empty page, as long as the block lasts; the test is skipped where no browser is installed."""
    browser = installed_browser()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    options += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "--disable-background-networking"]
    (its_commands, commands), (answers, its_answers) = os.pipe(), os.pipe()
    # It reads from its third file and writes to its fourth.
    command = f'exec "$@" 3<&{its_commands} 4>&{its_answers}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", browser, *options],
        pass_fds=(its_commands, its_answers),
        stderr=subprocess.DEVNULL,
    )
    os.close(its_commands)
    os.close(its_answers)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait()
        os.close(commands)
        os.close(answers)
