"""A real issuer of tokens of the grid for tests: it answers over HTTP, signs, changes its keys, and can be away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet

WLCG_ANY = "https://wlcg.cern.ch/jwt/v1/any"


class GridIssuerDouble:
    """Publishes its keys and makes tokens; `asked` counts how often somebody wanted the keys."""

    def __init__(self) -> None:
        self.keys: list[Key] = [ECKey.generate_key("P-256", {"kid": "first"}, private=True)]
        self.asked = 0
        self.is_away = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                documents: dict[str, Any] = {
                    "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"},
                    "/jwks": KeySet(issuer.keys).as_dict(private=False),
                }
                issuer.asked += self.path == "/jwks"
                body = json.dumps(documents.get(self.path, {})).encode()
                self.send_response(503 if issuer.is_away else 200 if self.path in documents else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def rotate(self, kid: str) -> None:
        self.keys = [ECKey.generate_key("P-256", {"kid": kid}, private=True)]

    def claims(self, scope: str, **changed: object) -> dict[str, Any]:
        """The claims of a good token of the WLCG profile; what is changed to None is left out."""
        now = int(time())
        good = {
            "iss": self.url, "sub": "robot", "aud": WLCG_ANY, "iat": now, "nbf": now, "exp": now + 3600,
            "wlcg.ver": "1.0", "scope": scope,
        }  # fmt: skip
        return {name: value for name, value in {**good, **changed}.items() if value is not None}

    def sign(self, scope: str, **changed: object) -> str:
        key = self.keys[-1]
        return jwt.encode({"alg": "ES256", "kid": key.kid}, self.claims(scope, **changed), key)


@contextmanager
def running_issuer() -> Iterator[GridIssuerDouble]:
    double = GridIssuerDouble()
    thread = threading.Thread(target=double.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield double
    finally:
        double.server.shutdown()
        thread.join()
        double.server.server_close()
