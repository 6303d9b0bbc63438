"""A real Chromium with a device for passkeys that is always at hand, told what to do by WebDriver."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what the specification calls an element
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,900"]
_DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "isUserConsenting": True,
}


def find_missing() -> str | None:
    """What is missing for a browser, or None."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)}" if missing else None


class Chromium:
    """One window. Elements are named by CSS selectors; what is not there yet is waited for."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http, self._session = http, session

    def add_device(self) -> str:
        return str(self._post("webauthn/authenticator", **_DEVICE))

    def list_keys(self, device: str) -> list[dict[str, Any]]:
        """The passkeys on the device."""
        return list(self._do("GET", f"webauthn/authenticator/{device}/credentials"))

    def open(self, url: str) -> None:
        self._post("url", url=url)

    def click(self, selector: str) -> None:
        self._post(f"element/{self._find(selector)}/click")

    def fill(self, selector: str, text: str) -> None:
        element = self._find(selector)
        self._post(f"element/{element}/clear")
        self._post(f"element/{element}/value", text=text)

    def wait_for(self, text: str) -> None:
        """Return once the page shows the text."""
        end = time.monotonic() + 15
        while text not in (shown := self.read()):
            assert time.monotonic() < end, shown
            time.sleep(0.05)

    def read(self) -> str:
        """What the page shows."""
        return str(self._post("execute/sync", script="return document.body ? document.body.innerText : ''", args=[]))

    def press(self, selector: str, key: str) -> None:
        """A key while this element has the focus."""
        self._post(f"element/{self._find(selector)}/value", text=key)

    def ask(self, script: str) -> Any:
        """What a script of the test finds on the page."""
        return self._post("execute/sync", script=script, args=[])

    def resize(self, width: int, height: int) -> None:
        """What the page believes the window is, in its pixels."""
        wanted = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._post("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=wanted)

    def forget_cookies(self) -> None:
        self._do("DELETE", "cookie")

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._post("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params=wanted)

    def take_picture(self, place: Path) -> None:
        place.write_bytes(base64.b64decode(str(self._do("GET", "screenshot"))))

    def _find(self, selector: str) -> str:
        end = time.monotonic() + 10
        while True:
            found = self._post("elements", using="css selector", value=selector)
            if found:
                return str(found[0][_ELEMENT])
            assert time.monotonic() < end, f"no {selector} in: {self.read()}"
            time.sleep(0.05)

    def _post(self, path: str, **body: Any) -> Any:
        return self._do("POST", path, body)

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._http.request(method, f"/session/{self._session}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]


@contextmanager
def running_chromium() -> Iterator[Chromium]:
    """A browser of its own, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen([str(shutil.which("chromedriver")), f"--port={port}"], **quiet)  # type: ignore[call-overload]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            session = _begin(http)
            try:
                yield Chromium(http, session)
            finally:
                http.delete(f"/session/{session}")
    finally:
        driver.kill()
        driver.wait()


def _begin(http: httpx.Client) -> str:
    options = {"binary": shutil.which("chromium"), "args": _ARGUMENTS}
    wanted = {"browserName": "chrome", "webauthn:virtualAuthenticators": True, "goog:chromeOptions": options}
    end = time.monotonic() + 20
    while not _listens(http):
        assert time.monotonic() < end, "chromedriver does not listen"
        time.sleep(0.05)
    answer = http.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["value"]["sessionId"])


def _listens(http: httpx.Client) -> bool:
    try:
        return http.get("/status").status_code == 200
    except httpx.ConnectError:
        return False
