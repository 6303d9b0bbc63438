"""The ASGI application of one process: the doors of the planes that it serves, and how it listens."""

from __future__ import annotations

import socket
from importlib.metadata import version
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perdure.app.composition import Application, find_faults, remember
from perdure.app.heap import settle_heap
from perdure.app.wire import BoundedProtocol
from perdure.doors.api import open_api, open_data, open_streams
from perdure.doors.http.app import create_web
from perdure.doors.http.hops import HeaderLogin, TrustedHops
from perdure.doors.http.limiting import RequestLimits
from perdure.doors.http.revocation import RevocationLists
from perdure.doors.http.services import Place, Services
from perdure.doors.http.tls import Certificate
from perdure.doors.http.watching import NoWatch, RequestWatch
from perdure.doors.links import open_links
from perdure.doors.ui import (
    open_access_page,
    open_account_page,
    open_invitations_page,
    open_link_pages,
    open_login_pages,
    open_machine_pages,
    open_mail_pages,
    open_pages,
    open_pages_of_oneself,
    open_passkey_pages,
    open_people_pages,
    open_trail_page,
    open_usage_pages,
)
from perdure.identity import CredentialKind
from perdure.settings import ProviderSettings, Settings

_DOORS = {
    "api": (open_api,),
    "data": (open_data,),
    "ui": (
        open_pages,
        open_link_pages,
        open_passkey_pages,
        open_login_pages,
        open_access_page,
        open_account_page,
        open_invitations_page,
        open_machine_pages,
        open_mail_pages,
        open_pages_of_oneself,
        open_people_pages,
        open_trail_page,
        open_usage_pages,
    ),
}
_BACKLOG = 2048  # connections that wait to be taken; the server's own number
_FAULTS_REMEMBERED = 1.0  # anybody may ask for them, and each answer opens a connection to the database


def create_asgi(application: Application, *, planes: frozenset[str]) -> FastAPI:
    """The doors of these planes: `api` and `ui` for people and programs, `data` for bytes."""
    doors = [door for plane in sorted(planes) for door in _DOORS[plane]]
    if planes & {"api", "data"}:
        doors.append(open_streams)
    if planes & {"ui", "data"}:
        doors.append(open_links)
    watch = application.meters.requests if application.meters.are_wanted else NoWatch()
    return create_web(_make_services(application, watch), doors, watch=watch)


def _make_services(application: Application, watch: RequestWatch) -> Services:
    """What the HTTP doors are given."""
    settings = application.settings
    place = Place(
        instance_id=application.context.settings.instance_id,
        name="Perdure",
        version=version("perdure"),
        api_url=settings.public_url,
        data_url=settings.data_url,
    )
    return Services(
        identity=application.identity,
        archives=application.archives,
        sharing=application.sharing,
        clock=application.clock,
        place=lambda: place,
        header_logins={one.name: one for one in _header_logins(settings)},
        limits=RequestLimits.of(
            address=settings.rate_limit_address,
            identity=settings.rate_limit_identity,
            attempts=settings.rate_limit_attempts,
            on_refusal=watch.refused,
        ),
        find_faults=remember(lambda: find_faults(application), seconds=_FAULTS_REMEMBERED),
    )


def serve_planes(
    application: Application, *, port: int, planes: frozenset[str], grace: int, is_shared: bool = False
) -> None:
    """Answer on that port until SIGTERM, then give requests under way so many seconds.

    `is_shared`: other processes of ours listen there, too, and the system spreads connections over them.
    """
    configuration = configure_server(application, planes=planes, grace=grace, port=port)
    settle_heap()
    # Only uvloop sets TCP_NODELAY whoever made the socket: the loop of the standard library looks at its protocol
    uvicorn.Server(configuration).run([listen_with_others(application.settings.host, port)] if is_shared else None)


def configure_server(application: Application, *, planes: frozenset[str], grace: int, port: int = 0) -> uvicorn.Config:
    """How these planes are served: HTTP or, with a certificate, HTTPS, and whose word about callers counts."""
    settings = application.settings
    certificate = _find_certificate(settings)
    if certificate is not None:
        certificate.keep_fresh()
    return uvicorn.Config(
        _behind_hops(create_asgi(application, planes=planes), settings),
        host=settings.host,
        port=port,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # the rings around each request log it, with its id
        server_header=False,
        proxy_headers=False,  # see `_behind_hops`
        ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        timeout_graceful_shutdown=grace,
    )


def _find_certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _behind_hops(app: ASGIApp, settings: Settings) -> ASGIApp:
    """What proxies say of callers is believed where they are trusted, and taken away where they are not."""
    if settings.trusted_proxies:
        trusted = list(settings.trusted_proxies)  # never from the environment
        app = cast("ASGIApp", ProxyHeadersMiddleware(cast("Any", app), trusted_hosts=trusted))  # two ideas of one type
    logins = _header_logins(settings)
    return TrustedHops(app, trusted=settings.trusted_proxies, logins=logins) if logins else app


def _header_logins(settings: Settings) -> list[HeaderLogin]:
    kinds = {"proxy": CredentialKind.SAML, "x509": CredentialKind.X509}
    return [
        HeaderLogin(
            name=one.name,
            label=one.label or one.name,
            kind=kinds[one.kind],
            subject_header=one.subject_header,
            institution_header=one.institution_header,
            name_header=one.name_header,
            email_header=one.email_header,
            entitlement_header=one.entitlement_header,
            context_header=one.context_header,
            instant_header=one.instant_header,
            revocations=_find_revocations(one, settings),
        )
        for one in settings.providers
        if one.kind in kinds
    ]


def _find_revocations(one: ProviderSettings, settings: Settings) -> RevocationLists | None:
    authorities = one.ca_file or settings.tls_client_ca
    if not one.crl_files or authorities is None:
        return None
    return RevocationLists(one.crl_files, authorities, only_warns=one.on_bad_crl == "warn")


def listen_with_others(host: str, port: int) -> socket.socket:
    """A socket on an address that several processes of one user listen on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=True)
