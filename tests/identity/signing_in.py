"""A real provider of OpenID Connect beside the tests, and somebody who logs in there with a browser of his own."""

from __future__ import annotations

import fcntl
import html
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from joserfc.jwk import RSAKey

PROVIDER = Path(__file__).parent / "provider"
CLIENT_ID = "perdure"
CLIENT_SECRET = "a secret of the tests: 100 % + & safe"
REDIRECT_URI = "http://127.0.0.1:9/login/hall/callback"  # nobody listens: the browser of the tests stops before it


@dataclass(frozen=True)
class Hall:
    """The provider that runs, with the key that it signs with."""

    issuer: str
    key: RSAKey


def find_tools() -> str | None:
    """What is missing for the provider, or None."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)}" if missing else None


@contextmanager
def running_hall(tells: str | None = None) -> Iterator[Hall]:
    """Install the provider if that was not done yet, and run it on a free port.

    `tells` is the address of whom it tells that somebody logged out.
    """
    _install()
    key = RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = json.dumps(key.as_dict(private=True))
    environment = {**os.environ, "NODE_NO_WARNINGS": "1", "HALL_KEY": secret}
    words = ["node", "provider.mjs", str(port), *([tells] if tells else [])]
    process = subprocess.Popen(
        words, cwd=PROVIDER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "ready" in line:
                break
        yield Hall(f"http://127.0.0.1:{port}", key)
    finally:
        process.kill()
        process.communicate()


def _install() -> None:
    """Install the provider once, whichever of the processes that test comes first."""
    done = PROVIDER / "node_modules" / ".installed"
    with open(PROVIDER / "package.json", "rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not done.exists():
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=PROVIDER, check=True, capture_output=True)
            done.touch()


class Browser:
    """Logs in at the provider as somebody, and stops where he would come back to us."""

    def __init__(self, who: str) -> None:
        self._who = who
        alone = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(follow_redirects=False, timeout=10, trust_env=False, limits=alone)

    def go(self, url: str, stop_at: str = REDIRECT_URI) -> dict[str, str]:
        """Follow the login from this address; what he brings back."""
        response = self._http.get(url)
        for _ in range(20):
            if response.is_redirect:
                url = urljoin(str(response.request.url), response.headers["location"])
                if url.startswith(stop_at):
                    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                response = self._http.get(url)
                continue
            response = self._answer(response)
        raise AssertionError(f"the login does not end: {response.status_code} {response.text[:300]}")

    def confirm_device(self, complete_uri: str) -> None:
        """Confirm a login that was begun on a device."""
        response = self._http.get(complete_uri)
        for _ in range(20):
            if response.is_redirect:
                response = self._http.get(urljoin(str(response.request.url), response.headers["location"]))
                continue
            if "<form" not in response.text:
                return
            response = self._answer(response)
        raise AssertionError("the confirmation does not end")

    def _answer(self, response: httpx.Response) -> httpx.Response:
        """Fill in the form of the page and send it."""
        found = re.search(r"<form[^>]*action=\"([^\"]+)\"", response.text)
        assert found is not None, response.text[:500]
        fields = dict(re.findall(r"<input[^>]*name=\"([^\"]+)\"[^>]*value=\"([^\"]*)\"", response.text))
        fields |= {name: html.unescape(value) for name, value in fields.items()}
        if 'name="logout"' in response.text:
            fields["logout"] = "yes"
        if 'name="login"' in response.text:
            fields |= {"login": self._who, "password": "any"}
        return self._http.post(urljoin(str(response.request.url), html.unescape(found[1])), data=fields)
