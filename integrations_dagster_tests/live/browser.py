"""Headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import requests
from websockets.sync.client import ClientConnection, connect

from integrations_dagster_tests.live.stack import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "needs headless Chromium: apt-get install chromium"
WIDTH, HEIGHT = 1600, 1000


class Page:
    """One page of the browser.

    Args:
        connection: The DevTools connection of the page.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._calls = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a DevTools command and wait for its answer."""
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._calls:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    @property
    def text(self) -> str:
        """What the page shows."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def shows(self, *texts: str, timeout: float = 60) -> None:
        """Wait until the page shows all of these texts.

        Raises:
            TimeoutError: It does not; the message has what it shows.
        """
        try:
            wait_for("page", lambda: all(text in self.text for text in texts), timeout)
        except TimeoutError:
            raise TimeoutError(f"The page does not show {texts}, but: {self.text[:2000]}") from None

    def click(self, text: str) -> None:
        """Click the smallest element whose text is this, once it is there."""
        found = _with_text(text)
        wait_for(f"{text!r} to click", lambda: self.evaluate(f"!!({found})"), 30)
        self.evaluate(f"({found}).click()")

    def press(self, icon: str, which: int) -> None:
        """Click a button that has an icon and no text.

        Args:
            icon: Its accessible label.
            which: Its place among those with such an icon.
        """
        found = f"""[...document.querySelectorAll('button')].filter(e => !e.innerText.trim() &&
            e.querySelector('[aria-label={json.dumps(icon)}]'))[{which}]"""
        wait_for(f"button {icon!r}", lambda: self.evaluate(f"!!({found})"), 30)
        self.evaluate(f"({found}).click()")

    def hotkey(self, code: str, key: str, *, alt: bool = False) -> None:
        """Press a key, as KeyE and e."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, code=code, key=key, modifiers=1 if alt else 0)

    def scroll_to(self, text: str) -> None:
        """Bring the element whose text is this to the top, once it is there."""
        found = _with_text(text)
        wait_for(f"{text!r}", lambda: self.evaluate(f"!!({found})"), 30)
        self.evaluate(f"({found}).scrollIntoView()")

    def size(self, width: int = WIDTH, height: int = HEIGHT, scale: float = 1) -> None:
        """Set the size of the page in CSS pixels, and how many pixels of a picture one of them is."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """Write what is seen as a PNG, once it has stood still for a second.

        Args:
            height: Pixels from the top; default: all.
        """
        clip = {"clip": {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}} if height else {}
        seen = ""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            now = self.call("Page.captureScreenshot", format="png", **clip)["data"]
            if now == seen:
                break
            seen = now
            time.sleep(1)
        path.write_bytes(base64.b64decode(seen))


def _with_text(text: str) -> str:
    """JavaScript for the smallest element whose text is this."""
    return f"""[...document.querySelectorAll('button, a, td, div, span')]
        .filter(e => e.innerText && e.innerText.trim() === {json.dumps(text)}).pop()"""


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a fresh headless Chromium, which ends with the block."""
    assert CHROMIUM, MISSING
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-extensions",
                "--hide-scrollbars",
                "--no-first-run",
                f"--window-size={WIDTH},{HEIGHT}",
                f"--user-data-dir={profile}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"

            def port() -> str | None:
                assert process.poll() is None, f"{CHROMIUM} ended with {process.returncode}"
                with suppress(FileNotFoundError):
                    return port_file.read_text().partition("\n")[0]
                return None

            found = wait_for("Chromium", port, 60)
            pages = requests.get(f"http://127.0.0.1:{found}/json", timeout=20).json()
            url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            with connect(url, max_size=None, open_timeout=30) as connection:
                page = Page(connection)
                page.size()
                yield page
        finally:
            with suppress(psutil.NoSuchProcess):
                tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
                for child in tree:
                    with suppress(psutil.Error):
                        child.kill()
            process.wait(10)
