"""What the operator chose: from a TOML file and the environment, checked, complete, unchangeable.

The file is the one that `PERDURE_CONFIG` names, else `perdure.toml` in the working folder, else `config.toml` in the
data folder. An environment variable `PERDURE_<FIELD>` is stronger than the file; lists are separated by commas there.
A secret may be given by the name of a file that holds it: `<field>_file`.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from perdure.kernel.errors import BadInputError
from perdure.kernel.ids import parse_id
from perdure.kernel.paths import find_path_problem

PREFIX = "PERDURE_"
SECRETS = frozenset({"database_url", "metrics_token", "smtp_password"})
# Variables with our prefix that are no settings of the server: the client's, and those that choose settings or tests
NOT_SETTINGS = frozenset(
    {"PERDURE_CONFIG", "PERDURE_URL", "PERDURE_TOKEN", "PERDURE_CREDENTIALS", "PERDURE_REQUIRE", "PERDURE_CRASH_AT"}
)
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")
STORE_KINDS = ("posix",)
SMTP_SECURITY = ("starttls", "tls", "plain")
PROVIDER_KINDS = ("oidc", "proxy", "saml", "x509", "ldap")
SAML_SUBJECTS = ("pairwise-id", "subject-id", "eduPersonPrincipalName", "persistent")
CRL_POLICIES = ("refuse", "warn")
TOKEN_PROFILES = ("wlcg", "scitokens")


class BadSettingError(BadInputError):
    code = "bad_setting"
    title = "A setting cannot be used"
    next_step = "Correct it; docs/operate/configure.md describes every setting."


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """One place for bytes; profiles ask for copies by `location` and `medium`: one disk holds no two copies."""

    name: str
    path: Path
    kind: str = "posix"
    location: str = "here"
    medium: str = "disk"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One way to log in beside a local password.

    `oidc`: a provider that knows us as `client_id`. `proxy`: a web server of `trusted_proxies` that has logged somebody
    in and says so in headers, as Shibboleth's module does. `saml`: an institution that is asked without such a server.
    `x509`: a certificate that such a server has verified. `ldap`: a directory that takes a name and a password.

    For certificates `ca_file` (`tls_client_ca` without) are the authorities that sign the lists in `crl_files`, and
    `on_bad_crl` is what follows when no list that is in force speaks of a certificate.
    """

    name: str
    kind: str = "oidc"
    label: str = ""
    issuer: str = ""
    client_id: str = ""
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    entitlement_claims: tuple[str, ...] = ("eduperson_entitlement", "entitlements", "groups")
    audience: str | None = None
    single_logout: bool = True
    subject_header: str = "remote-user"
    institution_header: str = "shib-identity-provider"
    name_header: str = "displayname"
    email_header: str = "mail"
    entitlement_header: str = "entitlement"
    context_header: str = "shib-authncontext-class"
    instant_header: str = "shib-authentication-instant"
    metadata_file: Path | None = None
    metadata_certificate: Path | None = None
    entity_id: str = ""
    subject: str = "pairwise-id"
    entitlement_attributes: tuple[str, ...] = ("eduPersonEntitlement", "eduPersonScopedAffiliation")
    crl_files: tuple[Path, ...] = ()
    on_bad_crl: str = "refuse"
    servers: tuple[str, ...] = ()
    ca_file: Path | None = None
    allow_plain_ldap: bool = False
    bind_dn: str = ""
    bind_password: str | None = field(default=None, repr=False)
    user_dn: str = ""
    user_base: str = ""
    user_filter: str = "(uid={login})"
    subject_attribute: str = "entryUUID"
    name_attributes: tuple[str, ...] = ("displayName", "cn")
    email_attribute: str = "mail"
    orcid_attribute: str = ""
    group_attribute: str = "memberOf"
    group_base: str = ""
    group_filter: str = "(&(objectClass=groupOfNames)(member={dn}))"
    timeout_seconds: int = 5


@dataclass(frozen=True, slots=True)
class TokenIssuerSettings:
    """An issuer of tokens of the grid, which are taken where bytes are moved.

    `base_path` is where archives stand in its paths, `paths` are folders that are one archive, `subjects` are
    identities of subjects, and `service` is the service account in whose name all others come.
    """

    name: str
    issuer: str
    profile: str = "wlcg"
    audiences: tuple[str, ...] = ()
    any_audience: bool = True
    base_path: str = "/"
    paths: Mapping[str, str] = field(default_factory=dict)
    subjects: Mapping[str, str] = field(default_factory=dict)
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, with its default. `host`, `port` and the like are where we listen, `public_url` and `data_url`
    what others are told, for a proxy in between."""

    data_dir: Path
    stores: tuple[StoreSettings, ...]
    database_url: str | None = field(default=None, repr=False)  # it may hold a password
    host: str = "127.0.0.1"
    port: int = 8440
    data_port: int = 8441
    public_url: str = ""
    data_url: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    allow_plain_http: bool = False
    trusted_proxies: tuple[str, ...] = ()
    providers: tuple[ProviderSettings, ...] = ()
    token_issuers: tuple[TokenIssuerSettings, ...] = ()
    ingest_roots: tuple[Path, ...] = ()
    log_level: str = "info"
    log_format: str = "auto"
    session_hours: int = 12
    refused_application_days: int = 90
    pending_application_days: int = 180
    service_token_days: int = 365
    service_grace_hours: int = 7 * 24
    web_processes: int = 0
    worker_processes: int = 0
    worker_concurrency: int = 4
    worker_queues: tuple[str, ...] = ()
    head_quiet_seconds: int = 120
    upload_expiry_hours: int = 24
    disk_reserve_bytes: int = 2 * 1024**3
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    metrics_token: str | None = field(default=None, repr=False)
    slow_request_ms: int = 1000
    slow_query_ms: int = 500
    rate_limit_identity: int = 30_000
    rate_limit_address: int = 60_000
    rate_limit_attempts: int = 120
    smtp_host: str | None = None
    smtp_port: int = 0
    smtp_security: str = "starttls"
    smtp_user: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    smtp_ca: Path | None = None
    mail_from: str | None = None
    invitation_days: int = 14
    invited_guests: bool = True

    @property
    def web_process_count(self) -> int:
        """How many processes answer on `port`: by itself one for each processor, at most two.

        One only where it answers for the data plane, too, and where the system does not spread connections.
        """
        if not self.data_port or not sys.platform.startswith("linux"):
            return 1
        return self.web_processes or min(2, os.cpu_count() or 1)

    @property
    def worker_process_count(self) -> int:
        """How many processes of `perdure serve` take jobs: by itself one for each processor, at most two."""
        return self.worker_processes or min(2, os.cpu_count() or 1)

    @property
    def postgres_dir(self) -> Path:
        """Where the embedded server keeps its files."""
        return self.data_dir / "postgres"

    @property
    def keys_dir(self) -> Path:
        """Where the signing keys lie, each a file of mode 0600."""
        return self.data_dir / "keys"


def load_settings(environment: Mapping[str, str] | None = None, **chosen: object) -> Settings:
    """The settings of this process; `chosen` are the strongest (the command line's), None among them is passed over.

    Raises BadSettingError, which names the key.
    """
    given = os.environ if environment is None else environment
    values = _from_environment(given) | {name: value for name, value in chosen.items() if value is not None}
    data_dir = Path(str(values.get("data_dir", "")) or default_data_dir(given)).expanduser()
    from_file = _from_file(_find_file(given, data_dir))
    return settings_from({"data_dir": str(data_dir)} | from_file | values)


def settings_from(values: Mapping[str, object]) -> Settings:
    """Settings from plain values, as TOML and JSON have them; raises BadSettingError."""
    known = {entry.name: entry for entry in fields(Settings)}
    read = _with_secrets_read(dict(values))
    for key in read:
        if key not in known:
            raise BadSettingError(f"There is no setting {key!r}.", key=key)
    parsed = {key: _PARSERS[key](key, value) for key, value in read.items()}
    data_dir = parsed.setdefault("data_dir", default_data_dir(os.environ))
    assert isinstance(data_dir, Path)
    parsed.setdefault("stores", _default_stores(data_dir))
    settings = Settings(**parsed)  # type: ignore[arg-type]  # each value comes from the parser of its own field
    _check_openness(settings)
    return _checked(_with_urls(settings))


def plain_values(settings: Settings) -> dict[str, object]:
    """The settings as JSON has them; `settings_from` reads them back. Holds secrets."""
    return {key: value for key, value in _plain(asdict(settings)).items() if value is not None}


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """The platform's folder for the data of a user's programs."""
    home = Path(environment.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "perdure"
    return Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share") / "perdure"


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.upper()


def is_required(key: str, of: type[StoreSettings] | type[ProviderSettings] = StoreSettings) -> bool:
    """Whether a field of a table must be given."""
    return any(f.name == key and f.default is MISSING for f in fields(of))


_TABLES = ("stores", "providers", "token_issuers")  # given in the file only


def _find_file(environment: Mapping[str, str], data_dir: Path) -> Path | None:
    named = environment.get("PERDURE_CONFIG")
    if named:
        if not Path(named).is_file():
            raise BadSettingError(f"PERDURE_CONFIG names {named}, which is not a file.", key="PERDURE_CONFIG")
        return Path(named)
    return next((path for path in (Path("perdure.toml"), data_dir / "config.toml") if path.is_file()), None)


def _from_file(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadSettingError(f"{path} cannot be read: {error}.", key=str(path)) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    known = {variable_of(entry.name): entry.name for entry in fields(Settings) if entry.name not in _TABLES}
    known |= {variable_of(f"{secret}_file"): f"{secret}_file" for secret in SECRETS}
    found: dict[str, object] = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        if variable not in known:
            raise BadSettingError(f"There is no setting for the variable {variable}.", key=variable)
        found[known[variable]] = value
    return found


def _with_secrets_read(values: dict[str, object]) -> dict[str, object]:
    for secret in SECRETS:
        named = values.pop(f"{secret}_file", None)
        if named is None:
            continue
        if values.get(secret) is not None:
            raise BadSettingError(f"Give {secret} or {secret}_file, not both.", key=secret)
        values[secret] = _read_secret(f"{secret}_file", named)
    return values


def _read_secret(key: str, named: object) -> str:
    try:
        return Path(str(named)).read_text().strip()
    except OSError as error:
        raise BadSettingError(f"{key} cannot be read: {error}.", key=key) from error


def _default_stores(data_dir: Path) -> tuple[StoreSettings, ...]:
    return tuple(StoreSettings(name=name, path=data_dir / "stores" / name) for name in ("first", "second"))


def _with_urls(settings: Settings) -> Settings:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104  # told, not bound
    if settings.tls_cert and settings.public_url:
        host = urlsplit(settings.public_url).hostname or host  # which the certificate has, for the other port as well
    shown = f"{'https' if settings.tls_cert else 'http'}://" + (f"[{host}]" if ":" in host else host)
    public = settings.public_url or f"{shown}:{settings.port}"
    data = settings.data_url or (f"{shown}:{settings.data_port}" if settings.data_port else public)
    values = {entry.name: getattr(settings, entry.name) for entry in fields(settings)}
    return Settings(**values | {"public_url": public.rstrip("/"), "data_url": data.rstrip("/")})


def _check_openness(settings: Settings) -> None:
    """Passwords and data do not go over a network in clear unless the operator says so."""
    if settings.tls_client_ca and not settings.tls_cert:
        raise BadSettingError("Clients show certificates over TLS: set tls_cert, too.", key="tls_client_ca")
    if settings.tls_key and not settings.tls_cert:
        raise BadSettingError("tls_key is the key of a certificate: set tls_cert, too.", key="tls_key")
    if not settings.tls_cert and not settings.allow_plain_http and not _is_loopback(settings.host):
        raise BadSettingError(
            f"With host {settings.host} others reach us, and there is no TLS: set tls_cert, or allow_plain_http if a "
            "proxy has it or the network is to be trusted.",
            key="host",
        )
    if settings.tls_cert and not settings.public_url and settings.host in ("0.0.0.0", "::"):  # noqa: S104  # compared
        raise BadSettingError("Set public_url to the name that the certificate has.", key="public_url")


def _checked(settings: Settings) -> Settings:
    names = [store.name for store in settings.stores]
    paths = [store.path for store in settings.stores]
    if not names:
        raise BadSettingError("stores must name at least one store.", key="stores")
    if len(set(names)) < len(names) or len(set(paths)) < len(paths):
        raise BadSettingError("Each of the stores needs a name and a path of its own.", key="stores")
    ways = [provider.name for provider in settings.providers]
    if len(set(ways)) < len(ways):
        raise BadSettingError("Each of the providers needs a name of its own.", key="providers")
    issuers = [one.issuer for one in settings.token_issuers]
    if len(set(issuers)) < len(issuers):
        raise BadSettingError("Each of the token_issuers needs an issuer of its own.", key="token_issuers")
    if any(one.kind == "proxy" for one in settings.providers) and not settings.trusted_proxies:
        raise BadSettingError("A provider of the kind proxy needs trusted_proxies.", key="trusted_proxies")
    if not settings.tls_client_ca and any(one.crl_files and not one.ca_file for one in settings.providers):
        raise BadSettingError(
            "A provider with crl_files needs ca_file, whose authorities sign them.", key="providers.ca_file"
        )
    if settings.data_port == settings.port and settings.port:
        raise BadSettingError("data_port equals port; give 0 to serve both on one port.", key="data_port")
    if settings.metrics_port and settings.metrics_port in (settings.port, settings.data_port):
        raise BadSettingError("metrics_port needs a port of its own.", key="metrics_port")
    if settings.metrics_port and not settings.metrics_token and not _is_loopback(settings.metrics_host):
        raise BadSettingError("metrics_host is open to others, so metrics_token must be set.", key="metrics_token")
    _check_mail(settings)
    return settings


def _check_mail(settings: Settings) -> None:
    if settings.smtp_host and not settings.mail_from:
        raise BadSettingError("Mail needs a sender: set mail_from, too.", key="mail_from")
    if settings.smtp_password and not settings.smtp_user:
        raise BadSettingError("smtp_password is that of a user: set smtp_user, too.", key="smtp_password")
    if settings.smtp_user and settings.smtp_security == "plain" and not _is_loopback(settings.smtp_host or ""):
        raise BadSettingError(
            "A password does not go over a network in clear: choose starttls or tls.", key="smtp_user"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadSettingError(f"{key} must be text.", key=key)
    return value


def _optional_text(key: str, value: object) -> str | None:
    return _text(key, value) or None


def _path(key: str, value: object) -> Path:
    text = _text(key, value)
    if not text:
        raise BadSettingError(f"{key} must name a path.", key=key)
    return Path(text).expanduser().absolute()


def _optional_path(key: str, value: object) -> Path | None:
    return _path(key, value) if value else None


def _flag(key: str, value: object) -> bool:
    told = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
    found = told.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise BadSettingError(f"{key} must be true or false.", key=key)
    return found


def _networks(key: str, value: object) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(text)) for text in _texts(key, value))
    except ValueError as error:
        raise BadSettingError(
            f"{key} must list addresses and networks, such as 10.1.0.0/16: {error}.", key=key
        ) from None


def _number(low: int, high: int) -> Callable[[str, object], int]:
    def parse(key: str, value: object) -> int:
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadSettingError(f"{key} must be a whole number from {low} to {high}.", key=key)
        return value

    return parse


def _one_of(choices: Sequence[str]) -> Callable[[str, object], str]:
    def parse(key: str, value: object) -> str:
        text = _text(key, value)
        if text not in choices:
            raise BadSettingError(f"{key} must be one of {', '.join(choices)}.", key=key)
        return text

    return parse


def _texts(key: str, value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise BadSettingError(f"{key} must be a list.", key=key)
    return tuple(text for text in (_text(key, part).strip() for part in parts) if text)


def _paths(key: str, value: object) -> tuple[Path, ...]:
    return tuple(_path(key, text) for text in _texts(key, value))


def _url(key: str, value: object) -> str:
    text = _text(key, value)
    if text and (urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc):
        raise BadSettingError(f"{key} must be an http or https URL.", key=key)
    return text


def _optional_sender(key: str, value: object) -> str | None:
    """An address, or a name and an address in angle brackets."""
    text = _text(key, value)
    if text and not (text.isprintable() and _SENDER.fullmatch(text)):
        raise BadSettingError(f"{key} must be an address, or as in: Archive <archive@example.org>.", key=key)
    return text or None


def _stores(key: str, value: object) -> tuple[StoreSettings, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(store, Mapping) for store in value):
        raise BadSettingError("stores must be tables: [[stores]].", key=key)
    return tuple(_store(store) for store in value)


def _store(values: Mapping[str, object]) -> StoreSettings:
    known = {entry.name for entry in fields(StoreSettings)}
    for name in values:
        if name not in known:
            raise BadSettingError(f"A store has no setting {name!r}.", key=f"stores.{name}")
    for name in known:
        if is_required(name) and not values.get(name):
            raise BadSettingError(f"A store needs {name!r}.", key=f"stores.{name}")
    return StoreSettings(
        name=_text("stores.name", values["name"]),
        path=_path("stores.path", values["path"]),
        kind=_one_of(STORE_KINDS)("stores.kind", values.get("kind", "posix")),
        location=_text("stores.location", values.get("location", "here")),
        medium=_text("stores.medium", values.get("medium", "disk")),
    )


def _providers(key: str, value: object) -> tuple[ProviderSettings, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
        raise BadSettingError("providers must be tables: [[providers]].", key=key)
    return tuple(_provider(one) for one in value)


def _provider(values: Mapping[str, object]) -> ProviderSettings:
    known = {entry.name for entry in fields(ProviderSettings)}
    given = dict(values)
    for secret in _PROVIDER_SECRETS:
        named = given.pop(f"{secret}_file", None)
        if named is not None:
            given[secret] = _read_secret(f"providers.{secret}_file", named)
    for name in given:
        if name not in known:
            raise BadSettingError(f"A provider has no setting {name!r}.", key=f"providers.{name}")
    parsed: dict[str, Any] = {}  # Any: each value comes from the parser of its own field
    for name, value in given.items():
        parsed[name] = None if value is None else _PROVIDER_PARSERS.get(name, _text)(f"providers.{name}", value)
    provider = ProviderSettings(**{"name": "", **parsed})
    _check_provider(provider)
    return provider


def _check_provider(provider: ProviderSettings) -> None:
    _one_of(PROVIDER_KINDS)("providers.kind", provider.kind)
    if not _PROVIDER_NAME.fullmatch(provider.name):
        raise BadSettingError("A provider needs a name of small letters, digits and hyphens.", key="providers.name")
    for name in {"oidc": ("issuer", "client_id"), "saml": ("issuer", "metadata_file")}.get(provider.kind, ()):
        if not getattr(provider, name):
            raise BadSettingError(f"The provider {provider.name} needs {name!r}.", key=f"providers.{name}")
    for name in [entry.name for entry in fields(ProviderSettings) if entry.name.endswith("_header")]:
        header = getattr(provider, name)
        is_needed = provider.kind == "proxy" and name in ("subject_header", "institution_header")
        if not _HEADER_NAME.fullmatch(header) and (header or is_needed):
            raise BadSettingError(f"{name} must be the name of a header, without underscores.", key=f"providers.{name}")
    if provider.crl_files and provider.kind != "x509":
        raise BadSettingError("crl_files are for a provider of the kind x509.", key="providers.crl_files")
    if provider.kind == "oidc":
        _check_issuer("providers.issuer", provider.issuer)
    if provider.kind == "ldap":
        _check_directory(provider)
    if provider.kind == "saml":
        _check_institution(provider)


def _check_issuer(key: str, issuer: str) -> None:
    parts = urlsplit(issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise BadSettingError("An issuer is an https URL.", key=key)


def _token_issuers(key: str, value: object) -> tuple[TokenIssuerSettings, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
        raise BadSettingError("token_issuers must be tables: [[token_issuers]].", key=key)
    return tuple(_token_issuer(one) for one in value)


def _token_issuer(values: Mapping[str, object]) -> TokenIssuerSettings:
    parsers: dict[str, Callable[[str, object], Any]] = {  # Any: each of its own type
        "name": _text,
        "issuer": _text,
        "profile": _one_of(TOKEN_PROFILES),
        "audiences": _texts,
        "any_audience": _flag,
        "base_path": _folder,
        "paths": _ids_of_folders,
        "subjects": _ids,
        "service": _optional_id,
    }
    for name in values:
        if name not in parsers:
            raise BadSettingError(f"A token issuer has no setting {name!r}.", key=f"token_issuers.{name}")
    for name in ("name", "issuer"):
        if not values.get(name):
            raise BadSettingError(f"A token issuer needs {name!r}.", key=f"token_issuers.{name}")
    parsed = {name: parsers[name](f"token_issuers.{name}", value) for name, value in values.items()}
    _check_issuer("token_issuers.issuer", parsed["issuer"])
    return TokenIssuerSettings(**parsed)


def _folder(key: str, value: object) -> str:
    """An absolute path in its one form: `/`, or no slash at its end."""
    text = _text(key, value)
    inside = text.removeprefix("/").removesuffix("/")
    is_plain = text == "/" or (find_path_problem(inside.encode()) is None and "%" not in text)
    if not text.startswith("/") or not is_plain:
        raise BadSettingError(f"{key} must be a path such as /store/archives, without '.', '..' or '%'.", key=key)
    return f"/{inside}"


def _ids(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadSettingError(f"{key} must be a table.", key=key)
    return {_text(key, name): _id(key, one) for name, one in value.items()}


def _ids_of_folders(key: str, value: object) -> dict[str, str]:
    return {_folder(key, name): one for name, one in _ids(key, value).items()}


def _id(key: str, value: object) -> str:
    try:
        return str(parse_id(_text(key, value)))
    except ValueError as error:
        raise BadSettingError(f"{key}: {error}.", key=key) from None


def _optional_id(key: str, value: object) -> str | None:
    return None if value is None else _id(key, value)


def _check_institution(provider: ProviderSettings) -> None:
    if not urlsplit(provider.issuer).scheme or any(one.isspace() for one in provider.issuer + provider.entity_id):
        raise BadSettingError("An entity ID is a URI, without blanks.", key="providers.issuer")
    for key in ("metadata_file", "metadata_certificate"):
        path = getattr(provider, key)
        if path is not None and not path.is_file():
            raise BadSettingError(f"{path} is not a file.", key=f"providers.{key}")


def _check_directory(provider: ProviderSettings) -> None:
    if not provider.servers:
        raise BadSettingError(f"The provider {provider.name} needs 'servers'.", key="providers.servers")
    if bool(provider.user_dn) == bool(provider.user_base):
        detail = f"The provider {provider.name} needs user_base, where people are looked for, or user_dn, not both."
        raise BadSettingError(detail, key="providers.user_base")
    if bool(provider.bind_dn) != bool(provider.bind_password):
        raise BadSettingError("bind_dn and bind_password go together.", key="providers.bind_password")
    if not provider.subject_attribute:
        raise BadSettingError("Without subject_attribute nobody can be told apart.", key="providers.subject_attribute")
    if provider.allow_plain_ldap and not any(one.lower().startswith("ldap:") for one in provider.servers):
        raise BadSettingError(
            "allow_plain_ldap is for tests, with servers by ldap://.", key="providers.allow_plain_ldap"
        )


_PROVIDER_SECRETS = ("client_secret", "bind_password")
_PROVIDER_PARSERS: dict[str, Callable[[str, object], object]] = {
    "client_secret": _optional_text,
    "audience": _optional_text,
    "single_logout": _flag,
    "scopes": _texts,
    "entitlement_claims": _texts,
    "servers": _texts,
    "metadata_file": _optional_path,
    "metadata_certificate": _optional_path,
    "subject": _one_of(SAML_SUBJECTS),
    "entitlement_attributes": _texts,
    "ca_file": _optional_path,
    "crl_files": _paths,
    "on_bad_crl": _one_of(CRL_POLICIES),
    "allow_plain_ldap": _flag,
    "bind_password": _optional_text,
    "name_attributes": _texts,
    "timeout_seconds": _number(1, 60),
}
_SENDER = re.compile(r"[^<>@\s]+@[A-Za-z0-9.-]+|[^<>@\",]+ <[^<>@\s]+@[A-Za-z0-9.-]+>", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")  # some servers take an underscore for a hyphen
_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

_PARSERS: dict[str, Callable[[str, object], object]] = {
    "data_dir": _path,
    "stores": _stores,
    "database_url": _optional_text,
    "host": _text,
    "port": _number(0, 65535),
    "data_port": _number(0, 65535),
    "public_url": _url,
    "data_url": _url,
    "tls_cert": _optional_path,
    "tls_key": _optional_path,
    "tls_client_ca": _optional_path,
    "allow_plain_http": _flag,
    "trusted_proxies": _networks,
    "providers": _providers,
    "token_issuers": _token_issuers,
    "ingest_roots": _paths,
    "log_level": _one_of(LOG_LEVELS),
    "log_format": _one_of(LOG_FORMATS),
    "session_hours": _number(1, 24 * 90),
    "refused_application_days": _number(1, 3650),
    "pending_application_days": _number(1, 3650),
    "service_token_days": _number(1, 3650),
    "service_grace_hours": _number(0, 90 * 24),
    "web_processes": _number(0, 64),
    "worker_processes": _number(0, 64),
    "worker_concurrency": _number(1, 256),
    "worker_queues": _texts,
    "head_quiet_seconds": _number(0, 24 * 3600),
    "upload_expiry_hours": _number(1, 24 * 365),
    "disk_reserve_bytes": _number(0, 2**60),
    "metrics_host": _text,
    "metrics_port": _number(0, 65535),
    "metrics_token": _optional_text,
    "slow_request_ms": _number(0, 3_600_000),
    "slow_query_ms": _number(0, 3_600_000),
    "rate_limit_identity": _number(0, 10_000_000),
    "rate_limit_address": _number(0, 10_000_000),
    "rate_limit_attempts": _number(0, 10_000_000),
    "smtp_host": _optional_text,
    "smtp_port": _number(0, 65535),
    "smtp_security": _one_of(SMTP_SECURITY),
    "smtp_user": _optional_text,
    "smtp_password": _optional_text,
    "smtp_ca": _optional_path,
    "mail_from": _optional_sender,
    "invitation_days": _number(1, 365),
    "invited_guests": _flag,
}


def _plain(value: dict[str, object]) -> dict[str, object]:
    return {key: _plain_value(item) for key, item in value.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    if isinstance(value, Mapping):
        return _plain(dict(value))
    return value
