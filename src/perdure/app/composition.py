"""The composition root: settings become adapters, adapters services, services what the doors are given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog
from prometheus_client import Metric

from perdure.adapters.ldap.directory import LdapDirectory, LdapSettings
from perdure.adapters.oidc import GridIssuer, GridIssuerSettings, OidcProvider, OidcSettings
from perdure.adapters.passkeys import WebAuthn
from perdure.adapters.posix.store import PosixStore, find_instance_id
from perdure.adapters.registrar import FolderRegistrar
from perdure.adapters.saml import SamlProvider, SamlSettings, find_missing
from perdure.adapters.sealing import FileSealer
from perdure.adapters.signing import KEYS_NAME, FileSigner
from perdure.adapters.smtp import SmtpMailer, SmtpSettings
from perdure.app.metrics.facts import Facts
from perdure.app.metrics.meters import Meters
from perdure.archives.exporting import export_events, export_registry
from perdure.archives.ingesting import INGEST_JOB
from perdure.archives.profiles import seed_shipped
from perdure.archives.records import ArchiveSettings, Context, make_context
from perdure.archives.service import Archives, make_archives
from perdure.db import Database
from perdure.db.instance import settle_instance_id
from perdure.db.migrations import SchemaState, schema_state
from perdure.events import EventLog
from perdure.formats.canonical import canonical_json
from perdure.identity import Identity, IdentitySettings, ServiceLimits
from perdure.identity.grid_scopes import GridPlaces, GridProfile
from perdure.jobs import Jobs, Lifelines, run_worker
from perdure.kernel.clock import Clock, SystemClock
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.metadata.service import Metadata
from perdure.settings import BadSettingError, ProviderSettings, Settings, StoreSettings
from perdure.sharing.invitations import InvitationSettings
from perdure.sharing.service import Sharing, make_sharing
from perdure.storage.service import Storage

log = structlog.get_logger(__name__)

_Asking = Callable[[], Mapping[str, str | None]]
_RECOVER_EVERY = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Application:
    """Everything that the doors of one process share."""

    settings: Settings
    db: Database
    jobs: Jobs
    clock: Clock
    events: EventLog
    identity: Identity
    storage: Storage
    context: Context
    archives: Archives
    sharing: Sharing
    signer: FileSigner
    meters: Meters

    def numbers(self, *, with_facts: bool) -> Callable[[], list[Metric]]:
        """What collects the numbers of this process; with facts those of the database and the stores, too."""
        facts = self._make_facts() if with_facts else None

        def collect() -> list[Metric]:
            return [*self.meters.collect(self.db), *(facts.collect() if facts else ())]

        return collect

    def _make_facts(self) -> Facts:
        return Facts(
            self.db,
            self.clock,
            stores=[store.name for store in self.settings.stores],
            prepared=self.storage.stores,
            is_sound=self.storage.is_sound,
            room=self.storage.room,
            reserve=self.settings.disk_reserve_bytes,
            kinds=self.jobs.kinds(),
            periodic=self.jobs.periodic_kinds(),
        )

    def work(self, stop: threading.Event, *, grace: float) -> None:
        """Run jobs and number events until `stop` is set; then hand on what does not end within `grace` seconds."""
        self.signer.prepare()
        self.publish_keys()
        sequencer = threading.Thread(target=self.events.run_sequencer, args=(stop,), name="sequencer")
        sequencer.start()
        try:
            run_worker(
                self.jobs,
                queues=list(self.settings.worker_queues) or None,
                concurrency=self.settings.worker_concurrency,
                stop_event=stop,
                grace=grace,
                lifelines=self.context.lifelines,
            )
        finally:
            stop.set()
            sequencer.join()
            self._export()

    def _export(self) -> None:
        """Bring what the stores lack to them, so that a stopped installation rebuilds whole."""
        try:
            self.archives.heads.catch_up()  # what others left unwritten when they died
            export_registry(self.context)
            export_events(self.context)
        except PerdureError as error:
            log.warning("export_failed", error=error.detail)

    def publish_keys(self) -> None:
        """Keep the list of public keys with every store, so that what was signed can be verified without us."""
        document = {"format": 1, "keys": self.signer.public_keys()}
        self.storage.write_store_file(KEYS_NAME, canonical_json(document) + b"\n")

    def rotate_key(self) -> str:
        """Let a new key sign from here on; returns its id."""
        self.signer.prepare()
        identifier = self.signer.rotate()
        self.publish_keys()
        return identifier

    def close(self) -> None:
        """Let go of the database."""
        self.db.dispose()


def build(
    settings: Settings,
    database_url: str,
    *,
    process: str = "perdure",
    clock: Clock | None = None,
    on_sync_failure: Callable[[], None] | None = None,
) -> Application:
    """Wire the application on a database whose schema fits, and open its stores.

    `on_sync_failure` is told when the primary store lost writes, so that this process will write there no more.
    Raises ForeignStoreError when a store belongs to another installation.
    """
    clock = clock or SystemClock()
    meters = Meters(settings, database_url)
    watch = meters.statements if meters.are_wanted else None
    db = Database(database_url, application_name=f"perdure {process}", watch=watch)
    try:
        return _wire(settings, db, clock, meters, on_sync_failure)
    except BaseException:
        db.dispose()
        raise


def _wire(
    settings: Settings, db: Database, clock: Clock, meters: Meters, on_sync_failure: Callable[[], None] | None
) -> Application:
    primary, *others = settings.stores
    stores = [_make_store(primary, on_sync_failure), *map(_make_store, others)]
    with db.begin() as tx:
        instance_id = settle_instance_id(tx, find_instance_id(settings.stores[0].path) or new_id())
        seed_shipped(tx)
    jobs = Jobs(db, watch=meters.jobs)
    events = EventLog(db, clock)
    chosen = IdentitySettings(
        session_lifetime=timedelta(hours=settings.session_hours),
        forget_refused=timedelta(days=settings.refused_application_days),
        forget_pending=timedelta(days=settings.pending_application_days),
        services=ServiceLimits(
            longest_life=timedelta(days=settings.service_token_days),
            grace=timedelta(hours=settings.service_grace_hours),
        ),
        url=settings.public_url,
    )
    identity = Identity(
        db,
        clock,
        events,
        FileSealer(settings.keys_dir),
        chosen,
        providers=[_make_provider(one, clock) for one in settings.providers if one.kind in ("oidc", "saml")],
        directories=[_make_directory(one) for one in settings.providers if one.kind == "ldap"],
        issuers=_make_issuers(settings, clock),
        passkeys=WebAuthn(),
        jobs=jobs,
        mailer=make_mailer(settings),
    )
    jobs.register_periodic("identity.forget_ended", timedelta(hours=24), identity.forget_ended)
    jobs.register_periodic("identity.forget_memberships", timedelta(hours=24), identity.forget_ended_memberships)
    jobs.register_periodic("identity.forget_refused", timedelta(hours=24), identity.forget_refused)
    jobs.register_periodic("identity.forget_ended_mail", timedelta(hours=1), identity.forget_ended_mail)
    jobs.register_periodic("identity.tell_deciders", timedelta(hours=1), identity.tell_deciders)
    storage = Storage(db, stores, clock, instance_id=instance_id, reserve_bytes=settings.disk_reserve_bytes)
    storage.prepare()
    signer = FileSigner(settings.keys_dir, clock)
    context = make_context(
        db=db,
        clock=clock,
        identity=identity,
        events=events,
        jobs=jobs,
        storage=storage,
        metadata=Metadata(),
        registrar=FolderRegistrar(settings.data_dir / "registrar"),
        settings=ArchiveSettings(
            instance_id=instance_id,
            public_url=settings.public_url,
            head_quiet=timedelta(seconds=settings.head_quiet_seconds),
            ingest_roots=settings.ingest_roots,
            upload_lifetime=timedelta(hours=settings.upload_expiry_hours),
        ),
        lifelines=Lifelines(settings.data_dir / "alive"),
    )
    archives = make_archives(context, signer)
    sharing = make_sharing(
        archives, InvitationSettings(timedelta(days=settings.invitation_days), with_guests=settings.invited_guests)
    )
    meters.jobs.know(jobs.kinds(), receiving=[INGEST_JOB])
    return Application(
        settings=settings,
        db=db,
        jobs=jobs,
        clock=clock,
        events=events,
        identity=identity,
        storage=storage,
        context=context,
        archives=archives,
        sharing=sharing,
        signer=signer,
        meters=meters,
    )


def _make_provider(one: ProviderSettings, clock: Clock) -> OidcProvider | SamlProvider:
    if one.kind == "saml":
        return _make_institution(one, clock)
    return _make_oidc(one, clock)


def _make_oidc(one: ProviderSettings, clock: Clock) -> OidcProvider:
    return OidcProvider(
        OidcSettings(
            name=one.name,
            label=one.label or one.name,
            issuer=one.issuer,
            client_id=one.client_id,
            client_secret=one.client_secret,
            scopes=one.scopes,
            entitlement_claims=one.entitlement_claims,
            audience=one.audience,
            single_logout=one.single_logout,
        ),
        clock,
    )


def _make_institution(one: ProviderSettings, clock: Clock) -> SamlProvider:
    """Raises BadSettingError where what SAML needs is not installed."""
    missing = find_missing()
    if missing or one.metadata_file is None:
        raise BadSettingError(
            f"The provider {one.name} speaks SAML: {missing or 'set metadata_file'}.", key="providers"
        )
    return SamlProvider(
        SamlSettings(
            name=one.name,
            label=one.label or one.name,
            issuer=one.issuer,
            metadata_file=one.metadata_file,
            metadata_certificate=one.metadata_certificate,
            entity_id=one.entity_id,
            subject=one.subject,
            entitlement_attributes=one.entitlement_attributes,
        ),
        clock,
    )


def _make_directory(one: ProviderSettings) -> LdapDirectory:
    """Raises BadSettingError for what only the directory's own code can judge: addresses, filters, authorities."""
    try:
        return LdapDirectory(
            LdapSettings(
                name=one.name,
                label=one.label or one.name,
                servers=one.servers,
                ca_file=one.ca_file,
                allow_plain=one.allow_plain_ldap,
                bind_dn=one.bind_dn,
                bind_password=one.bind_password,
                user_dn=one.user_dn,
                user_base=one.user_base,
                user_filter=one.user_filter,
                subject_attribute=one.subject_attribute,
                name_attributes=one.name_attributes,
                email_attribute=one.email_attribute,
                orcid_attribute=one.orcid_attribute,
                group_attribute=one.group_attribute,
                group_base=one.group_base,
                group_filter=one.group_filter,
                seconds=one.timeout_seconds,
            )
        )
    except (ValueError, OSError) as error:
        raise BadSettingError(f"The provider {one.name} cannot be used: {error}.", key="providers") from error


def _make_issuers(settings: Settings, clock: Clock) -> list[GridIssuer]:
    return [
        GridIssuer(
            GridIssuerSettings(
                name=one.name,
                issuer=one.issuer,
                profile=GridProfile(one.profile),
                audiences=frozenset(one.audiences or (settings.public_url, settings.data_url)),
                any_audience=one.any_audience,
                places=GridPlaces(
                    base=one.base_path.rstrip("/"),
                    known={path.rstrip("/"): UUID(text) for path, text in one.paths.items()},
                ),
                subjects={subject: UUID(text) for subject, text in one.subjects.items()},
                service_id=None if one.service is None else UUID(one.service),
            ),
            clock,
        )
        for one in settings.token_issuers
    ]


def make_questions(settings: Settings) -> dict[str, Callable[[], str]]:
    """What to ask whom logins and tokens need: providers, each server of each directory, issuers of tokens.

    Each says what was answered, or raises what is wrong.
    """
    clock = SystemClock()
    found: dict[str, Callable[[], str]] = {}
    for one in settings.providers:
        if one.kind == "oidc":
            found[f"provider {one.name}"] = _make_oidc(one, clock).check
        elif one.kind == "ldap":
            found |= _make_questions_of_directory(one)
    return found | {f"token issuer {one.issuer}": one.check for one in _make_issuers(settings, clock)}


def _make_questions_of_directory(one: ProviderSettings) -> dict[str, Callable[[], str]]:
    try:
        directory = _make_directory(one)
    except BadSettingError as error:
        return {f"directory {one.name}": partial(_raise, error)}
    return {f"directory {one.name} at {server}": partial(directory.check, server) for server in directory.servers}


def _raise(error: PerdureError) -> str:
    raise error


def make_mailer(settings: Settings) -> SmtpMailer | None:
    """What sends mail; None where no server is set."""
    if settings.smtp_host is None or settings.mail_from is None:
        return None
    return SmtpMailer(
        SmtpSettings(
            host=settings.smtp_host,
            sender=settings.mail_from,
            port=settings.smtp_port,
            security=settings.smtp_security,
            user=settings.smtp_user,
            password=settings.smtp_password,
            ca=settings.smtp_ca,
        )
    )


def _make_store(store: StoreSettings, on_sync_failure: Callable[[], None] | None = None) -> PosixStore:
    return PosixStore(
        store.name, store.path, medium=store.medium, stands=store.location, on_sync_failure=on_sync_failure
    )


def remember(ask: _Asking, *, seconds: float, now: Callable[[], float] = time.monotonic) -> _Asking:
    """The same question, asked anew only when the last answer is older; who comes meanwhile waits for that answer."""
    turn = threading.Lock()
    last: list[tuple[float, Mapping[str, str | None]]] = []

    def answer() -> Mapping[str, str | None]:
        with turn:
            if not last or now() - last[0][0] >= seconds:
                found = ask()
                last[:] = [(now(), found)]
            return last[0][1]

    return answer


def find_faults(application: Application) -> Mapping[str, str | None]:
    """What the work of a process needs, and what is wrong with it in words fit for a stranger."""
    faults: dict[str, str | None] = {"database": None, "schema": None, "stores": None}
    try:
        state = schema_state(application.db.url)
        faults["schema"] = None if state is SchemaState.CURRENT else f"the schema is {state.value}"
    except PerdureError as error:
        faults["database"] = error.title
    try:
        application.storage.check_room(0)
    except PerdureError as error:
        faults["stores"] = error.title
    return faults


@contextmanager
def opened(
    settings: Settings, database_url: str, *, process: str, on_sync_failure: Callable[[], None] | None = None
) -> Iterator[Application]:
    """A built application that looks after its stores, and is closed at the end."""
    application = build(settings, database_url, process=process, on_sync_failure=on_sync_failure)
    stop = threading.Event()
    keeper = threading.Thread(target=_recover_stores, args=(application, stop), name="stores", daemon=True)
    keeper.start()  # a daemon: a dead mount holds up whoever touches it, and shall not hold up the end
    try:
        yield application
    finally:
        stop.set()
        application.close()


def _recover_stores(application: Application, stop: threading.Event) -> None:
    """Take stores in that were away at the start or failed since, for as long as the process runs."""
    while not stop.wait(_RECOVER_EVERY):
        try:
            application.storage.recover()
        except Exception as error:
            log.warning("stores_not_recovered", error=repr(error))
