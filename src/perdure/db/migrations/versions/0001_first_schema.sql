-- Every table of the first release, with the queue's own.

CREATE TYPE procrastinate_job_event_type AS ENUM (
    'deferred',
    'started',
    'deferred_for_retry',
    'failed',
    'succeeded',
    'cancelled',
    'abort_requested',
    'aborted',
    'scheduled',
    'retried'
);

CREATE TYPE procrastinate_job_status AS ENUM (
    'todo',
    'doing',
    'succeeded',
    'failed',
    'cancelled',
    'aborting',
    'aborted'
);

CREATE TYPE procrastinate_job_to_defer_v1 AS (
	queue_name character varying,
	task_name character varying,
	priority integer,
	lock text,
	queueing_lock text,
	args jsonb,
	scheduled_at timestamp with time zone
);

CREATE FUNCTION procrastinate_cancel_job_v1(job_id bigint, abort boolean, delete_job boolean) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
    _job_id bigint;
BEGIN
    IF delete_job THEN
        DELETE FROM procrastinate_jobs
        WHERE id = job_id AND status = 'todo'
        RETURNING id INTO _job_id;
    END IF;
    IF _job_id IS NULL THEN
        IF abort THEN
            UPDATE procrastinate_jobs
            SET abort_requested = true,
                status = CASE status
                    WHEN 'todo' THEN 'cancelled'::procrastinate_job_status ELSE status
                END
            WHERE id = job_id AND status IN ('todo', 'doing')
            RETURNING id INTO _job_id;
        ELSE
            UPDATE procrastinate_jobs
            SET status = 'cancelled'::procrastinate_job_status
            WHERE id = job_id AND status = 'todo'
            RETURNING id INTO _job_id;
        END IF;
    END IF;
    RETURN _job_id;
END;
$$;

CREATE FUNCTION procrastinate_defer_jobs_v1(jobs procrastinate_job_to_defer_v1[]) RETURNS bigint[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    job_ids bigint[];
BEGIN
    WITH inserted_jobs AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
        SELECT (job).queue_name,
               (job).task_name,
               (job).priority,
               (job).lock,
               (job).queueing_lock,
               (job).args,
               (job).scheduled_at
        FROM unnest(jobs) AS job
        RETURNING id
    )
    SELECT array_agg(id) FROM inserted_jobs INTO job_ids;

    RETURN job_ids;
END;
$$;

CREATE FUNCTION procrastinate_defer_periodic_job_v2(_queue_name character varying, _lock character varying, _queueing_lock character varying, _task_name character varying, _priority integer, _periodic_id character varying, _defer_timestamp bigint, _args jsonb) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
	_job_id bigint;
	_defer_id bigint;
BEGIN
    INSERT
        INTO procrastinate_periodic_defers (task_name, periodic_id, defer_timestamp)
        VALUES (_task_name, _periodic_id, _defer_timestamp)
        ON CONFLICT DO NOTHING
        RETURNING id into _defer_id;

    IF _defer_id IS NULL THEN
        RETURN NULL;
    END IF;

    UPDATE procrastinate_periodic_defers
        SET job_id = (
            SELECT COALESCE((
                SELECT unnest(procrastinate_defer_jobs_v1(
                    ARRAY[
                        ROW(
                            _queue_name,
                            _task_name,
                            _priority,
                            _lock,
                            _queueing_lock,
                            _args,
                            NULL::timestamptz
                        )
                    ]::procrastinate_job_to_defer_v1[]
                ))
            ), NULL)
        )
        WHERE id = _defer_id
        RETURNING job_id INTO _job_id;

    DELETE
        FROM procrastinate_periodic_defers
        USING (
            SELECT id
            FROM procrastinate_periodic_defers
            WHERE procrastinate_periodic_defers.task_name = _task_name
            AND procrastinate_periodic_defers.periodic_id = _periodic_id
            AND procrastinate_periodic_defers.defer_timestamp < _defer_timestamp
            ORDER BY id
            FOR UPDATE
        ) to_delete
        WHERE procrastinate_periodic_defers.id = to_delete.id;

    RETURN _job_id;
END;
$$;

CREATE TABLE procrastinate_jobs (
    id bigint NOT NULL,
    queue_name character varying(128) NOT NULL,
    task_name character varying(128) NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    lock text,
    queueing_lock text,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    status procrastinate_job_status DEFAULT 'todo'::procrastinate_job_status NOT NULL,
    scheduled_at timestamp with time zone,
    attempts integer DEFAULT 0 NOT NULL,
    abort_requested boolean DEFAULT false NOT NULL,
    worker_id bigint,
    CONSTRAINT check_not_todo_abort_requested CHECK ((NOT ((status = 'todo'::procrastinate_job_status) AND (abort_requested = true))))
);

CREATE FUNCTION procrastinate_fetch_job_v2(target_queue_names character varying[], p_worker_id bigint) RETURNS procrastinate_jobs
    LANGUAGE plpgsql
    AS $$
DECLARE
	found_jobs procrastinate_jobs;
BEGIN
    WITH candidate AS (
        SELECT jobs.*
            FROM procrastinate_jobs AS jobs
            WHERE
                -- reject the job if its lock has earlier or higher priority jobs
                NOT EXISTS (
                    SELECT 1
                        FROM procrastinate_jobs AS other_jobs
                        WHERE
                            jobs.lock IS NOT NULL
                            AND other_jobs.lock = jobs.lock
                            AND (
                                -- job with same lock is already running
                                other_jobs.status = 'doing'
                                OR
                                -- job with same lock is waiting and has higher priority (or same priority but was queued first)
                                (
                                    other_jobs.status = 'todo'
                                    AND (
                                        other_jobs.priority > jobs.priority
                                        OR (
                                        other_jobs.priority = jobs.priority
                                        AND other_jobs.id < jobs.id
                                        )
                                    )
                                )
                            )
                )
                AND jobs.status = 'todo'
                AND (target_queue_names IS NULL OR jobs.queue_name = ANY( target_queue_names ))
                AND (jobs.scheduled_at IS NULL OR jobs.scheduled_at <= now())
            ORDER BY jobs.priority DESC, jobs.id ASC LIMIT 1
            FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE procrastinate_jobs
        SET status = 'doing', worker_id = p_worker_id
        FROM candidate
        WHERE procrastinate_jobs.id = candidate.id
        RETURNING procrastinate_jobs.* INTO found_jobs;

 RETURN found_jobs;
END;
$$;

CREATE FUNCTION procrastinate_finish_job_v1(job_id bigint, end_status procrastinate_job_status, delete_job boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    _job_id bigint;
BEGIN
    IF end_status NOT IN ('succeeded', 'failed', 'aborted') THEN
        RAISE 'End status should be either "succeeded", "failed" or "aborted" (job id: %)', job_id;
    END IF;
    IF delete_job THEN
        DELETE FROM procrastinate_jobs
        WHERE id = job_id AND status IN ('todo', 'doing')
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = end_status,
            abort_requested = false,
            attempts = CASE status
                WHEN 'doing' THEN attempts + 1 ELSE attempts
            END
        WHERE id = job_id AND status IN ('todo', 'doing')
        RETURNING id INTO _job_id;
    END IF;
    IF _job_id IS NULL THEN
        RAISE 'Job was not found or not in "doing" or "todo" status (job id: %)', job_id;
    END IF;
END;
$$;

CREATE FUNCTION procrastinate_notify_queue_abort_job_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    payload TEXT;
BEGIN
    SELECT json_build_object('type', 'abort_job_requested', 'job_id', NEW.id)::text INTO payload;
	PERFORM pg_notify('procrastinate_queue_v1#' || NEW.queue_name, payload);
	PERFORM pg_notify('procrastinate_any_queue_v1', payload);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_notify_queue_job_inserted_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    payload TEXT;
BEGIN
    SELECT json_build_object('type', 'job_inserted', 'job_id', NEW.id)::text INTO payload;
	PERFORM pg_notify('procrastinate_queue_v1#' || NEW.queue_name, payload);
	PERFORM pg_notify('procrastinate_any_queue_v1', payload);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_prune_stalled_workers_v1(seconds_since_heartbeat double precision) RETURNS TABLE(worker_id bigint)
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN QUERY
    DELETE FROM procrastinate_workers
    WHERE last_heartbeat < NOW() - (seconds_since_heartbeat || 'SECOND')::INTERVAL
    RETURNING procrastinate_workers.id;
END;
$$;

CREATE FUNCTION procrastinate_register_worker_v1() RETURNS TABLE(worker_id bigint)
    LANGUAGE plpgsql
    AS $$
BEGIN
    RETURN QUERY
    INSERT INTO procrastinate_workers DEFAULT VALUES
    RETURNING procrastinate_workers.id;
END;
$$;

CREATE FUNCTION procrastinate_retry_job_v1(job_id bigint, retry_at timestamp with time zone, new_priority integer, new_queue_name character varying, new_lock character varying) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    _job_id bigint;
    _abort_requested boolean;
BEGIN
    SELECT abort_requested FROM procrastinate_jobs
    WHERE id = job_id AND status = 'doing'
    FOR UPDATE
    INTO _abort_requested;
    IF _abort_requested THEN
        UPDATE procrastinate_jobs
        SET status = 'failed'::procrastinate_job_status
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = 'todo'::procrastinate_job_status,
            attempts = attempts + 1,
            scheduled_at = retry_at,
            priority = COALESCE(new_priority, priority),
            queue_name = COALESCE(new_queue_name, queue_name),
            lock = COALESCE(new_lock, lock)
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    END IF;

    IF _job_id IS NULL THEN
        RAISE 'Job was not found or not in "doing" status (job id: %)', job_id;
    END IF;
END;
$$;

CREATE FUNCTION procrastinate_retry_job_v2(job_id bigint, retry_at timestamp with time zone, new_priority integer, new_queue_name character varying, new_lock character varying) RETURNS void
    LANGUAGE plpgsql
    AS $$
DECLARE
    _job_id bigint;
    _abort_requested boolean;
    _current_status procrastinate_job_status;
BEGIN
    SELECT status, abort_requested FROM procrastinate_jobs
    WHERE id = job_id AND status IN ('doing', 'failed')
    FOR UPDATE
    INTO _current_status, _abort_requested;
    IF _current_status = 'doing' AND _abort_requested THEN
        UPDATE procrastinate_jobs
        SET status = 'failed'::procrastinate_job_status
        WHERE id = job_id AND status = 'doing'
        RETURNING id INTO _job_id;
    ELSE
        UPDATE procrastinate_jobs
        SET status = 'todo'::procrastinate_job_status,
            attempts = attempts + 1,
            scheduled_at = retry_at,
            priority = COALESCE(new_priority, priority),
            queue_name = COALESCE(new_queue_name, queue_name),
            lock = COALESCE(new_lock, lock)
        WHERE id = job_id AND status IN ('doing', 'failed')
        RETURNING id INTO _job_id;
    END IF;

    IF _job_id IS NULL THEN
        RAISE 'Job was not found or has an invalid status to retry (job id: %)', job_id;
    END IF;

END;
$$;

CREATE FUNCTION procrastinate_trigger_abort_requested_events_procedure_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type)
        VALUES (NEW.id, 'abort_requested'::procrastinate_job_event_type);
    RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_scheduled_events_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type, at)
        VALUES (NEW.id, 'scheduled'::procrastinate_job_event_type, NEW.scheduled_at);

	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_status_events_insert_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO procrastinate_events(job_id, type)
        VALUES (NEW.id, 'deferred'::procrastinate_job_event_type);
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_trigger_function_status_events_update_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    WITH t AS (
        SELECT CASE
            WHEN OLD.status = 'todo'::procrastinate_job_status
                AND NEW.status = 'doing'::procrastinate_job_status
                THEN 'started'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'todo'::procrastinate_job_status
                THEN 'deferred_for_retry'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'failed'::procrastinate_job_status
                THEN 'failed'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'succeeded'::procrastinate_job_status
                THEN 'succeeded'::procrastinate_job_event_type
            WHEN OLD.status = 'todo'::procrastinate_job_status
                AND (
                    NEW.status = 'cancelled'::procrastinate_job_status
                    OR NEW.status = 'failed'::procrastinate_job_status
                    OR NEW.status = 'succeeded'::procrastinate_job_status
                )
                THEN 'cancelled'::procrastinate_job_event_type
            WHEN OLD.status = 'doing'::procrastinate_job_status
                AND NEW.status = 'aborted'::procrastinate_job_status
                THEN 'aborted'::procrastinate_job_event_type
            WHEN OLD.status = 'failed'::procrastinate_job_status
                AND NEW.status = 'todo'::procrastinate_job_status
                THEN 'retried'::procrastinate_job_event_type
            ELSE NULL
        END as event_type
    )
    INSERT INTO procrastinate_events(job_id, type)
        SELECT NEW.id, t.event_type
        FROM t
        WHERE t.event_type IS NOT NULL;
	RETURN NEW;
END;
$$;

CREATE FUNCTION procrastinate_unlink_periodic_defers_v1() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE procrastinate_periodic_defers
    SET job_id = NULL
    WHERE job_id = OLD.id;
    RETURN OLD;
END;
$$;

CREATE FUNCTION procrastinate_unregister_worker_v1(worker_id bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM procrastinate_workers
    WHERE id = worker_id;
END;
$$;

CREATE FUNCTION procrastinate_update_heartbeat_v1(worker_id bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE procrastinate_workers
    SET last_heartbeat = NOW()
    WHERE id = worker_id;
END;
$$;

CREATE TABLE account_usage (
    account_id uuid NOT NULL,
    byte_count bigint DEFAULT '0'::bigint NOT NULL,
    reserved_bytes bigint DEFAULT '0'::bigint NOT NULL,
    file_count bigint DEFAULT '0'::bigint NOT NULL,
    CONSTRAINT ck_account_usage_use_positive CHECK (((byte_count >= 0) AND (reserved_bytes >= 0) AND (file_count >= 0)))
);

CREATE TABLE accounts (
    id uuid NOT NULL,
    organisation_id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    name_folded text NOT NULL,
    owner_id uuid NOT NULL,
    quota_bytes bigint,
    allowed_profiles text[],
    CONSTRAINT ck_accounts_kind CHECK ((kind = ANY (ARRAY['personal'::text, 'group'::text, 'beamline'::text]))),
    CONSTRAINT ck_accounts_quota CHECK ((quota_bytes >= 0))
);

CREATE TABLE archives (
    id uuid NOT NULL,
    organisation_id uuid NOT NULL,
    account_id uuid NOT NULL,
    parent_id uuid,
    state text NOT NULL,
    profile jsonb NOT NULL,
    description jsonb NOT NULL,
    folded text DEFAULT ''::text NOT NULL,
    access text NOT NULL,
    embargo_until date,
    keep_until date NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    opened_by uuid,
    closed_at timestamp with time zone,
    revision bigint NOT NULL,
    head_version integer DEFAULT 0 NOT NULL,
    journalled bigint DEFAULT '0'::bigint NOT NULL,
    metadata_journalled bigint DEFAULT '0'::bigint NOT NULL,
    head_revision bigint DEFAULT '0'::bigint NOT NULL,
    metadata_sequence bigint DEFAULT '0'::bigint NOT NULL,
    metadata_folded bigint DEFAULT '0'::bigint NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    close_job uuid,
    identifier text,
    identifier_state text,
    statement jsonb,
    receipt jsonb,
    tombstone jsonb,
    CONSTRAINT ck_archives_access_known CHECK ((access = ANY (ARRAY['private'::text, 'embargoed'::text, 'public'::text]))),
    CONSTRAINT ck_archives_closed_has_time CHECK (((state <> ALL (ARRAY['closed'::text, 'withdrawn'::text])) OR (closed_at IS NOT NULL))),
    CONSTRAINT ck_archives_embargo_has_end CHECK (((access <> 'embargoed'::text) OR (embargo_until IS NOT NULL))),
    CONSTRAINT ck_archives_state_known CHECK ((state = ANY (ARRAY['open'::text, 'closing'::text, 'closed'::text, 'withdrawn'::text, 'discarded'::text])))
);

CREATE TABLE copies (
    object_id text NOT NULL,
    store_id uuid NOT NULL,
    version integer NOT NULL,
    state text NOT NULL,
    written_at timestamp with time zone,
    verified_at timestamp with time zone,
    evidence jsonb NOT NULL,
    CONSTRAINT ck_copies_state CHECK ((state = ANY (ARRAY['writing'::text, 'written'::text, 'verified'::text, 'suspect'::text, 'lost'::text]))),
    CONSTRAINT ck_copies_verified_when CHECK (((state <> 'verified'::text) OR (verified_at IS NOT NULL)))
);

CREATE TABLE credentials (
    id uuid NOT NULL,
    identity_id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    secret text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone,
    CONSTRAINT ck_credentials_kind CHECK ((kind = 'password'::text))
);

CREATE TABLE events (
    id uuid NOT NULL,
    "position" bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    type text NOT NULL,
    subject uuid,
    actor_kind text NOT NULL,
    actor_id uuid,
    data json NOT NULL,
    number bigint,
    numbered_at timestamp with time zone,
    chain bytea
);

ALTER TABLE events ALTER COLUMN "position" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME events_position_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE export_state (
    id integer NOT NULL,
    name text NOT NULL,
    "position" bigint NOT NULL,
    digest text
);

ALTER TABLE export_state ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME export_state_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE files (
    archive_id uuid NOT NULL,
    path bytea NOT NULL,
    kind smallint NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer NOT NULL,
    content text,
    added_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
)
PARTITION BY HASH (archive_id);

CREATE TABLE files_00 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_01 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_02 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_03 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_04 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_05 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_06 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_07 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_08 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_09 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_10 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_11 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_12 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_13 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_14 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE files_15 (
    archive_id uuid CONSTRAINT files_archive_id_not_null NOT NULL,
    path bytea CONSTRAINT files_path_not_null NOT NULL,
    kind smallint CONSTRAINT files_kind_not_null NOT NULL,
    size bigint CONSTRAINT files_size_not_null NOT NULL,
    mtime_ns bigint,
    mode integer,
    digest bytea,
    crc32 bigint,
    digests jsonb,
    target bytea,
    part integer CONSTRAINT files_part_not_null NOT NULL,
    content text,
    added_at timestamp with time zone CONSTRAINT files_added_at_not_null NOT NULL,
    CONSTRAINT ck_files_file_has_digests CHECK (((kind <> 0) OR ((digest IS NOT NULL) AND (crc32 IS NOT NULL)))),
    CONSTRAINT ck_files_kind_known CHECK (((kind >= 0) AND (kind <= 3))),
    CONSTRAINT ck_files_size_positive CHECK ((size >= 0)),
    CONSTRAINT ck_files_symlink_has_target CHECK (((kind = 2) = (target IS NOT NULL)))
);

CREATE TABLE grants (
    id uuid NOT NULL,
    on_kind text NOT NULL,
    on_id uuid NOT NULL,
    identity_id uuid,
    group_id uuid,
    role text NOT NULL,
    granted_by uuid,
    granted_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    CONSTRAINT ck_grants_on_kind CHECK ((on_kind = ANY (ARRAY['archive'::text, 'account'::text]))),
    CONSTRAINT ck_grants_one_grantee CHECK ((num_nonnulls(identity_id, group_id) = 1)),
    CONSTRAINT ck_grants_role CHECK ((role = ANY (ARRAY['owner'::text, 'manager'::text, 'contributor'::text, 'reader'::text])))
);

CREATE TABLE group_members (
    group_id uuid NOT NULL,
    identity_id uuid NOT NULL,
    is_manager boolean DEFAULT false NOT NULL
);

CREATE TABLE groups (
    id uuid NOT NULL,
    organisation_id uuid NOT NULL,
    name text NOT NULL,
    name_folded text NOT NULL
);

CREATE TABLE idempotency_keys (
    identity_id uuid NOT NULL,
    key text NOT NULL,
    request_digest text NOT NULL,
    answer jsonb NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE TABLE identities (
    id uuid NOT NULL,
    organisation_id uuid NOT NULL,
    kind text NOT NULL,
    display_name text NOT NULL,
    email text,
    orcid text,
    state text DEFAULT 'active'::text NOT NULL,
    is_administrator boolean DEFAULT false NOT NULL,
    CONSTRAINT ck_identities_kind CHECK ((kind = ANY (ARRAY['person'::text, 'service'::text]))),
    CONSTRAINT ck_identities_state CHECK ((state = ANY (ARRAY['active'::text, 'disabled'::text])))
);

CREATE TABLE instance (
    is_only boolean NOT NULL,
    id uuid NOT NULL,
    CONSTRAINT ck_instance_only_one CHECK (is_only)
);

CREATE TABLE jobs (
    id uuid NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    thing uuid,
    requested_by uuid,
    queue_id bigint NOT NULL,
    state text NOT NULL,
    progress jsonb DEFAULT '{}'::jsonb NOT NULL,
    result jsonb,
    error jsonb,
    attempts integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    CONSTRAINT ck_jobs_attempts CHECK ((attempts >= 0)),
    CONSTRAINT ck_jobs_finished_when_final CHECK (((finished_at IS NOT NULL) = (state = ANY (ARRAY['succeeded'::text, 'failed'::text, 'cancelled'::text])))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE lifetime_notices (
    archive_id uuid NOT NULL,
    keep_until date NOT NULL,
    days integer NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE TABLE login_attempts (
    key bytea NOT NULL,
    failures integer NOT NULL,
    last_at timestamp with time zone NOT NULL
);

CREATE TABLE metadata_changes (
    thing uuid NOT NULL,
    sequence bigint NOT NULL,
    path_key bytea NOT NULL,
    path bytea NOT NULL,
    revision bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor_id uuid,
    actor_name text NOT NULL,
    changes text NOT NULL,
    digest text NOT NULL
);

CREATE TABLE metadata_state (
    thing uuid NOT NULL,
    sequence bigint NOT NULL,
    chain_digest text NOT NULL,
    changed_at timestamp with time zone,
    CONSTRAINT ck_metadata_state_sequence CHECK ((sequence >= 0))
);

CREATE TABLE metadata_subjects (
    thing uuid NOT NULL,
    path_key bytea NOT NULL,
    path bytea NOT NULL,
    revision bigint NOT NULL,
    sequence bigint NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    leaves bigint NOT NULL,
    size bigint NOT NULL,
    digest text,
    CONSTRAINT ck_metadata_subjects_counts CHECK (((revision > 0) AND (leaves >= 0) AND (size >= 0)))
);

CREATE TABLE metadata_values (
    thing uuid NOT NULL,
    path_key bytea NOT NULL,
    pointer_key bytea NOT NULL,
    long_pointer text,
    kind text NOT NULL,
    ordinal bigint NOT NULL,
    members integer NOT NULL,
    next_ordinal bigint NOT NULL,
    value text,
    folded text NOT NULL,
    CONSTRAINT ck_metadata_values_leaf_has_no_members CHECK (((members = 0) OR (kind = 'object'::text))),
    CONSTRAINT ck_metadata_values_object_has_no_value CHECK (((value IS NULL) = (kind = 'object'::text)))
);

CREATE TABLE objects (
    object_id text NOT NULL,
    kind text NOT NULL,
    archive_id uuid,
    version integer NOT NULL,
    inventory_digest text NOT NULL,
    byte_count bigint NOT NULL,
    CONSTRAINT ck_objects_kind CHECK ((kind = ANY (ARRAY['head'::text, 'part'::text, 'log'::text, 'registry'::text]))),
    CONSTRAINT ck_objects_version CHECK ((version >= 1))
);

CREATE TABLE organisations (
    id uuid NOT NULL,
    name text NOT NULL,
    ror text
);

CREATE TABLE parts (
    archive_id uuid NOT NULL,
    number integer NOT NULL,
    id uuid NOT NULL,
    state text NOT NULL,
    assigned_files integer DEFAULT 0 NOT NULL,
    assigned_bytes bigint DEFAULT '0'::bigint NOT NULL,
    file_count integer DEFAULT 0 NOT NULL,
    byte_count bigint DEFAULT '0'::bigint NOT NULL,
    inventory_digest text,
    manifest_digest text,
    sealed_at timestamp with time zone,
    CONSTRAINT ck_parts_sealed_has_digest CHECK (((state <> 'sealed'::text) OR (inventory_digest IS NOT NULL))),
    CONSTRAINT ck_parts_state_known CHECK ((state = ANY (ARRAY['filling'::text, 'full'::text, 'sealing'::text, 'sealed'::text])))
);

CREATE TABLE periodic_runs (
    kind text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    error jsonb
);

CREATE TABLE procrastinate_events (
    id bigint NOT NULL,
    job_id bigint NOT NULL,
    type procrastinate_job_event_type,
    at timestamp with time zone DEFAULT now()
);

CREATE SEQUENCE procrastinate_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE procrastinate_events_id_seq OWNED BY procrastinate_events.id;

CREATE SEQUENCE procrastinate_jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE procrastinate_jobs_id_seq OWNED BY procrastinate_jobs.id;

CREATE TABLE procrastinate_periodic_defers (
    id bigint NOT NULL,
    task_name character varying(128) NOT NULL,
    defer_timestamp bigint,
    job_id bigint,
    periodic_id character varying(128) DEFAULT ''::character varying NOT NULL
);

CREATE SEQUENCE procrastinate_periodic_defers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE procrastinate_periodic_defers_id_seq OWNED BY procrastinate_periodic_defers.id;

CREATE TABLE procrastinate_workers (
    id bigint NOT NULL,
    last_heartbeat timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE procrastinate_workers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME procrastinate_workers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE profiles (
    name text NOT NULL,
    contract jsonb NOT NULL,
    offered boolean DEFAULT true NOT NULL,
    ordinal integer DEFAULT 0 NOT NULL
);

CREATE TABLE record_changes (
    archive_id uuid NOT NULL,
    revision bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    actor_id uuid,
    actor_name text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL
);

CREATE TABLE sessions (
    id uuid NOT NULL,
    digest bytea NOT NULL,
    identity_id uuid NOT NULL,
    client_address text DEFAULT ''::text NOT NULL,
    client_agent text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone NOT NULL
);

CREATE TABLE stores (
    id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    medium text NOT NULL,
    location text NOT NULL,
    abilities jsonb NOT NULL
);

CREATE TABLE superseded (
    archive_id uuid NOT NULL,
    part integer NOT NULL,
    path bytea NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE TABLE tokens (
    id uuid NOT NULL,
    digest bytea NOT NULL,
    identity_id uuid NOT NULL,
    name text NOT NULL,
    prefix text NOT NULL,
    verbs text[] NOT NULL,
    archives uuid[],
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone
);

CREATE TABLE uploads (
    id uuid NOT NULL,
    archive_id uuid NOT NULL,
    part integer NOT NULL,
    path bytea,
    state text NOT NULL,
    file_count integer NOT NULL,
    byte_count bigint NOT NULL,
    received bigint DEFAULT '0'::bigint NOT NULL,
    attributes jsonb DEFAULT '{}'::jsonb NOT NULL,
    opened_by uuid,
    opened_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone,
    CONSTRAINT ck_uploads_state_known CHECK ((state = ANY (ARRAY['reserved'::text, 'receiving'::text, 'finished'::text, 'abandoned'::text])))
);

CREATE TABLE withdrawals (
    archive_id uuid NOT NULL,
    identity_id uuid NOT NULL,
    reason text NOT NULL,
    at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY files ATTACH PARTITION files_00 FOR VALUES WITH (modulus 16, remainder 0);

ALTER TABLE ONLY files ATTACH PARTITION files_01 FOR VALUES WITH (modulus 16, remainder 1);

ALTER TABLE ONLY files ATTACH PARTITION files_02 FOR VALUES WITH (modulus 16, remainder 2);

ALTER TABLE ONLY files ATTACH PARTITION files_03 FOR VALUES WITH (modulus 16, remainder 3);

ALTER TABLE ONLY files ATTACH PARTITION files_04 FOR VALUES WITH (modulus 16, remainder 4);

ALTER TABLE ONLY files ATTACH PARTITION files_05 FOR VALUES WITH (modulus 16, remainder 5);

ALTER TABLE ONLY files ATTACH PARTITION files_06 FOR VALUES WITH (modulus 16, remainder 6);

ALTER TABLE ONLY files ATTACH PARTITION files_07 FOR VALUES WITH (modulus 16, remainder 7);

ALTER TABLE ONLY files ATTACH PARTITION files_08 FOR VALUES WITH (modulus 16, remainder 8);

ALTER TABLE ONLY files ATTACH PARTITION files_09 FOR VALUES WITH (modulus 16, remainder 9);

ALTER TABLE ONLY files ATTACH PARTITION files_10 FOR VALUES WITH (modulus 16, remainder 10);

ALTER TABLE ONLY files ATTACH PARTITION files_11 FOR VALUES WITH (modulus 16, remainder 11);

ALTER TABLE ONLY files ATTACH PARTITION files_12 FOR VALUES WITH (modulus 16, remainder 12);

ALTER TABLE ONLY files ATTACH PARTITION files_13 FOR VALUES WITH (modulus 16, remainder 13);

ALTER TABLE ONLY files ATTACH PARTITION files_14 FOR VALUES WITH (modulus 16, remainder 14);

ALTER TABLE ONLY files ATTACH PARTITION files_15 FOR VALUES WITH (modulus 16, remainder 15);

ALTER TABLE ONLY procrastinate_events ALTER COLUMN id SET DEFAULT nextval('procrastinate_events_id_seq'::regclass);

ALTER TABLE ONLY procrastinate_jobs ALTER COLUMN id SET DEFAULT nextval('procrastinate_jobs_id_seq'::regclass);

ALTER TABLE ONLY procrastinate_periodic_defers ALTER COLUMN id SET DEFAULT nextval('procrastinate_periodic_defers_id_seq'::regclass);

ALTER TABLE ONLY files
    ADD CONSTRAINT pk_files PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_00
    ADD CONSTRAINT files_00_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_01
    ADD CONSTRAINT files_01_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_02
    ADD CONSTRAINT files_02_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_03
    ADD CONSTRAINT files_03_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_04
    ADD CONSTRAINT files_04_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_05
    ADD CONSTRAINT files_05_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_06
    ADD CONSTRAINT files_06_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_07
    ADD CONSTRAINT files_07_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_08
    ADD CONSTRAINT files_08_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_09
    ADD CONSTRAINT files_09_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_10
    ADD CONSTRAINT files_10_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_11
    ADD CONSTRAINT files_11_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_12
    ADD CONSTRAINT files_12_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_13
    ADD CONSTRAINT files_13_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_14
    ADD CONSTRAINT files_14_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY files_15
    ADD CONSTRAINT files_15_pkey PRIMARY KEY (archive_id, path);

ALTER TABLE ONLY account_usage
    ADD CONSTRAINT pk_account_usage PRIMARY KEY (account_id);

ALTER TABLE ONLY accounts
    ADD CONSTRAINT pk_accounts PRIMARY KEY (id);

ALTER TABLE ONLY archives
    ADD CONSTRAINT pk_archives PRIMARY KEY (id);

ALTER TABLE ONLY copies
    ADD CONSTRAINT pk_copies PRIMARY KEY (object_id, store_id);

ALTER TABLE ONLY credentials
    ADD CONSTRAINT pk_credentials PRIMARY KEY (id);

ALTER TABLE ONLY events
    ADD CONSTRAINT pk_events PRIMARY KEY (id);

ALTER TABLE ONLY export_state
    ADD CONSTRAINT pk_export_state PRIMARY KEY (id);

ALTER TABLE ONLY grants
    ADD CONSTRAINT pk_grants PRIMARY KEY (id);

ALTER TABLE ONLY group_members
    ADD CONSTRAINT pk_group_members PRIMARY KEY (group_id, identity_id);

ALTER TABLE ONLY groups
    ADD CONSTRAINT pk_groups PRIMARY KEY (id);

ALTER TABLE ONLY idempotency_keys
    ADD CONSTRAINT pk_idempotency_keys PRIMARY KEY (identity_id, key);

ALTER TABLE ONLY identities
    ADD CONSTRAINT pk_identities PRIMARY KEY (id);

ALTER TABLE ONLY instance
    ADD CONSTRAINT pk_instance PRIMARY KEY (is_only);

ALTER TABLE ONLY jobs
    ADD CONSTRAINT pk_jobs PRIMARY KEY (id);

ALTER TABLE ONLY lifetime_notices
    ADD CONSTRAINT pk_lifetime_notices PRIMARY KEY (archive_id, keep_until, days);

ALTER TABLE ONLY login_attempts
    ADD CONSTRAINT pk_login_attempts PRIMARY KEY (key);

ALTER TABLE ONLY metadata_changes
    ADD CONSTRAINT pk_metadata_changes PRIMARY KEY (thing, sequence);

ALTER TABLE ONLY metadata_state
    ADD CONSTRAINT pk_metadata_state PRIMARY KEY (thing);

ALTER TABLE ONLY metadata_subjects
    ADD CONSTRAINT pk_metadata_subjects PRIMARY KEY (thing, path_key);

ALTER TABLE ONLY metadata_values
    ADD CONSTRAINT pk_metadata_values PRIMARY KEY (thing, path_key, pointer_key);

ALTER TABLE ONLY objects
    ADD CONSTRAINT pk_objects PRIMARY KEY (object_id);

ALTER TABLE ONLY organisations
    ADD CONSTRAINT pk_organisations PRIMARY KEY (id);

ALTER TABLE ONLY parts
    ADD CONSTRAINT pk_parts PRIMARY KEY (archive_id, number);

ALTER TABLE ONLY periodic_runs
    ADD CONSTRAINT pk_periodic_runs PRIMARY KEY (kind);

ALTER TABLE ONLY profiles
    ADD CONSTRAINT pk_profiles PRIMARY KEY (name);

ALTER TABLE ONLY record_changes
    ADD CONSTRAINT pk_record_changes PRIMARY KEY (archive_id, revision);

ALTER TABLE ONLY sessions
    ADD CONSTRAINT pk_sessions PRIMARY KEY (id);

ALTER TABLE ONLY stores
    ADD CONSTRAINT pk_stores PRIMARY KEY (id);

ALTER TABLE ONLY superseded
    ADD CONSTRAINT pk_superseded PRIMARY KEY (archive_id, part, path);

ALTER TABLE ONLY tokens
    ADD CONSTRAINT pk_tokens PRIMARY KEY (id);

ALTER TABLE ONLY uploads
    ADD CONSTRAINT pk_uploads PRIMARY KEY (id);

ALTER TABLE ONLY withdrawals
    ADD CONSTRAINT pk_withdrawals PRIMARY KEY (archive_id, identity_id);

ALTER TABLE ONLY procrastinate_events
    ADD CONSTRAINT procrastinate_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY procrastinate_jobs
    ADD CONSTRAINT procrastinate_jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY procrastinate_periodic_defers
    ADD CONSTRAINT procrastinate_periodic_defers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY procrastinate_periodic_defers
    ADD CONSTRAINT procrastinate_periodic_defers_unique UNIQUE (task_name, periodic_id, defer_timestamp);

ALTER TABLE ONLY procrastinate_workers
    ADD CONSTRAINT procrastinate_workers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY accounts
    ADD CONSTRAINT uq_accounts_organisation_id_name_folded UNIQUE (organisation_id, name_folded);

ALTER TABLE ONLY archives
    ADD CONSTRAINT uq_archives_identifier UNIQUE (identifier);

ALTER TABLE ONLY credentials
    ADD CONSTRAINT uq_credentials_identity_id_kind UNIQUE (identity_id, kind);

ALTER TABLE ONLY credentials
    ADD CONSTRAINT uq_credentials_kind_subject UNIQUE (kind, subject);

ALTER TABLE ONLY events
    ADD CONSTRAINT uq_events_number UNIQUE (number);

ALTER TABLE ONLY export_state
    ADD CONSTRAINT uq_export_state_name UNIQUE (name);

ALTER TABLE ONLY grants
    ADD CONSTRAINT uq_grants_group UNIQUE (on_id, group_id, role);

ALTER TABLE ONLY grants
    ADD CONSTRAINT uq_grants_identity UNIQUE (on_id, identity_id, role);

ALTER TABLE ONLY groups
    ADD CONSTRAINT uq_groups_organisation_id_name_folded UNIQUE (organisation_id, name_folded);

ALTER TABLE ONLY organisations
    ADD CONSTRAINT uq_organisations_name UNIQUE (name);

ALTER TABLE ONLY parts
    ADD CONSTRAINT uq_parts_id UNIQUE (id);

ALTER TABLE ONLY sessions
    ADD CONSTRAINT uq_sessions_digest UNIQUE (digest);

ALTER TABLE ONLY stores
    ADD CONSTRAINT uq_stores_name UNIQUE (name);

ALTER TABLE ONLY tokens
    ADD CONSTRAINT uq_tokens_digest UNIQUE (digest);

CREATE INDEX ix_files_archive_id_part ON ONLY files USING btree (archive_id, part);

CREATE INDEX files_00_archive_id_part_idx ON files_00 USING btree (archive_id, part);

CREATE INDEX files_01_archive_id_part_idx ON files_01 USING btree (archive_id, part);

CREATE INDEX files_02_archive_id_part_idx ON files_02 USING btree (archive_id, part);

CREATE INDEX files_03_archive_id_part_idx ON files_03 USING btree (archive_id, part);

CREATE INDEX files_04_archive_id_part_idx ON files_04 USING btree (archive_id, part);

CREATE INDEX files_05_archive_id_part_idx ON files_05 USING btree (archive_id, part);

CREATE INDEX files_06_archive_id_part_idx ON files_06 USING btree (archive_id, part);

CREATE INDEX files_07_archive_id_part_idx ON files_07 USING btree (archive_id, part);

CREATE INDEX files_08_archive_id_part_idx ON files_08 USING btree (archive_id, part);

CREATE INDEX files_09_archive_id_part_idx ON files_09 USING btree (archive_id, part);

CREATE INDEX files_10_archive_id_part_idx ON files_10 USING btree (archive_id, part);

CREATE INDEX files_11_archive_id_part_idx ON files_11 USING btree (archive_id, part);

CREATE INDEX files_12_archive_id_part_idx ON files_12 USING btree (archive_id, part);

CREATE INDEX files_13_archive_id_part_idx ON files_13 USING btree (archive_id, part);

CREATE INDEX files_14_archive_id_part_idx ON files_14 USING btree (archive_id, part);

CREATE INDEX files_15_archive_id_part_idx ON files_15 USING btree (archive_id, part);

CREATE INDEX idx_procrastinate_jobs_worker_not_null ON procrastinate_jobs USING btree (worker_id) WHERE ((worker_id IS NOT NULL) AND (status = 'doing'::procrastinate_job_status));

CREATE INDEX idx_procrastinate_workers_last_heartbeat ON procrastinate_workers USING btree (last_heartbeat);

CREATE INDEX ix_archives_account_id ON archives USING btree (account_id, id);

CREATE INDEX ix_archives_parent_id ON archives USING btree (parent_id);

CREATE INDEX ix_copies_store_id_verified_at ON copies USING btree (store_id, verified_at);

CREATE INDEX ix_events_pending ON events USING btree ("position") WHERE (number IS NULL);

CREATE INDEX ix_events_subject_number ON events USING btree (subject, number);

CREATE INDEX ix_grants_group_id ON grants USING btree (group_id, on_kind);

CREATE INDEX ix_grants_identity_id ON grants USING btree (identity_id, on_kind);

CREATE INDEX ix_group_members_identity_id ON group_members USING btree (identity_id);

CREATE INDEX ix_jobs_finished_at ON jobs USING btree (finished_at);

CREATE INDEX ix_jobs_thing_id ON jobs USING btree (thing, id);

CREATE INDEX ix_metadata_changes_thing_path_key_sequence ON metadata_changes USING btree (thing, path_key, sequence);

CREATE INDEX ix_objects_archive_id ON objects USING btree (archive_id);

CREATE INDEX ix_sessions_expires_at ON sessions USING btree (expires_at);

CREATE INDEX ix_sessions_identity_id ON sessions USING btree (identity_id);

CREATE INDEX ix_tokens_identity_id ON tokens USING btree (identity_id);

CREATE INDEX ix_uploads_archive_id ON uploads USING btree (archive_id);

CREATE INDEX ix_uploads_expires_at ON uploads USING btree (expires_at);

CREATE INDEX procrastinate_events_job_id_fkey_v1 ON procrastinate_events USING btree (job_id);

CREATE INDEX procrastinate_jobs_id_lock_idx_v1 ON procrastinate_jobs USING btree (id, lock) WHERE (status = ANY (ARRAY['todo'::procrastinate_job_status, 'doing'::procrastinate_job_status]));

CREATE UNIQUE INDEX procrastinate_jobs_lock_idx_v1 ON procrastinate_jobs USING btree (lock) WHERE (status = 'doing'::procrastinate_job_status);

CREATE INDEX procrastinate_jobs_priority_idx_v1 ON procrastinate_jobs USING btree (priority DESC, id) WHERE (status = 'todo'::procrastinate_job_status);

CREATE INDEX procrastinate_jobs_queue_name_idx_v1 ON procrastinate_jobs USING btree (queue_name);

CREATE UNIQUE INDEX procrastinate_jobs_queueing_lock_idx_v1 ON procrastinate_jobs USING btree (queueing_lock) WHERE (status = 'todo'::procrastinate_job_status);

CREATE INDEX procrastinate_periodic_defers_job_id_fkey_v1 ON procrastinate_periodic_defers USING btree (job_id);

CREATE UNIQUE INDEX uq_accounts_personal ON accounts USING btree (owner_id) WHERE (kind = 'personal'::text);

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_00_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_00_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_01_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_01_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_02_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_02_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_03_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_03_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_04_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_04_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_05_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_05_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_06_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_06_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_07_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_07_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_08_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_08_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_09_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_09_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_10_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_10_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_11_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_11_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_12_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_12_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_13_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_13_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_14_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_14_pkey;

ALTER INDEX ix_files_archive_id_part ATTACH PARTITION files_15_archive_id_part_idx;

ALTER INDEX pk_files ATTACH PARTITION files_15_pkey;

CREATE TRIGGER procrastinate_jobs_notify_queue_job_aborted_v1 AFTER UPDATE OF abort_requested ON procrastinate_jobs FOR EACH ROW WHEN (((old.abort_requested = false) AND (new.abort_requested = true) AND (new.status = 'doing'::procrastinate_job_status))) EXECUTE FUNCTION procrastinate_notify_queue_abort_job_v1();

CREATE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1 AFTER INSERT ON procrastinate_jobs FOR EACH ROW WHEN ((new.status = 'todo'::procrastinate_job_status)) EXECUTE FUNCTION procrastinate_notify_queue_job_inserted_v1();

CREATE TRIGGER procrastinate_trigger_abort_requested_events_v1 AFTER UPDATE OF abort_requested ON procrastinate_jobs FOR EACH ROW WHEN ((new.abort_requested = true)) EXECUTE FUNCTION procrastinate_trigger_abort_requested_events_procedure_v1();

CREATE TRIGGER procrastinate_trigger_delete_jobs_v1 BEFORE DELETE ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION procrastinate_unlink_periodic_defers_v1();

CREATE TRIGGER procrastinate_trigger_scheduled_events_v1 AFTER INSERT OR UPDATE ON procrastinate_jobs FOR EACH ROW WHEN (((new.scheduled_at IS NOT NULL) AND (new.status = 'todo'::procrastinate_job_status))) EXECUTE FUNCTION procrastinate_trigger_function_scheduled_events_v1();

CREATE TRIGGER procrastinate_trigger_status_events_insert_v1 AFTER INSERT ON procrastinate_jobs FOR EACH ROW WHEN ((new.status = 'todo'::procrastinate_job_status)) EXECUTE FUNCTION procrastinate_trigger_function_status_events_insert_v1();

CREATE TRIGGER procrastinate_trigger_status_events_update_v1 AFTER UPDATE OF status ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION procrastinate_trigger_function_status_events_update_v1();

ALTER TABLE ONLY accounts
    ADD CONSTRAINT fk_accounts_organisation_id FOREIGN KEY (organisation_id) REFERENCES organisations(id);

ALTER TABLE ONLY accounts
    ADD CONSTRAINT fk_accounts_owner_id FOREIGN KEY (owner_id) REFERENCES identities(id);

ALTER TABLE ONLY archives
    ADD CONSTRAINT fk_archives_parent_id FOREIGN KEY (parent_id) REFERENCES archives(id);

ALTER TABLE ONLY copies
    ADD CONSTRAINT fk_copies_object_id FOREIGN KEY (object_id) REFERENCES objects(object_id) ON DELETE CASCADE;

ALTER TABLE ONLY copies
    ADD CONSTRAINT fk_copies_store_id FOREIGN KEY (store_id) REFERENCES stores(id);

ALTER TABLE ONLY credentials
    ADD CONSTRAINT fk_credentials_identity_id FOREIGN KEY (identity_id) REFERENCES identities(id);

ALTER TABLE ONLY grants
    ADD CONSTRAINT fk_grants_group_id FOREIGN KEY (group_id) REFERENCES groups(id);

ALTER TABLE ONLY grants
    ADD CONSTRAINT fk_grants_identity_id FOREIGN KEY (identity_id) REFERENCES identities(id);

ALTER TABLE ONLY group_members
    ADD CONSTRAINT fk_group_members_group_id FOREIGN KEY (group_id) REFERENCES groups(id);

ALTER TABLE ONLY group_members
    ADD CONSTRAINT fk_group_members_identity_id FOREIGN KEY (identity_id) REFERENCES identities(id);

ALTER TABLE ONLY groups
    ADD CONSTRAINT fk_groups_organisation_id FOREIGN KEY (organisation_id) REFERENCES organisations(id);

ALTER TABLE ONLY identities
    ADD CONSTRAINT fk_identities_organisation_id FOREIGN KEY (organisation_id) REFERENCES organisations(id);

ALTER TABLE ONLY lifetime_notices
    ADD CONSTRAINT fk_lifetime_notices_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY parts
    ADD CONSTRAINT fk_parts_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY record_changes
    ADD CONSTRAINT fk_record_changes_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY sessions
    ADD CONSTRAINT fk_sessions_identity_id FOREIGN KEY (identity_id) REFERENCES identities(id);

ALTER TABLE ONLY superseded
    ADD CONSTRAINT fk_superseded_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY tokens
    ADD CONSTRAINT fk_tokens_identity_id FOREIGN KEY (identity_id) REFERENCES identities(id);

ALTER TABLE ONLY uploads
    ADD CONSTRAINT fk_uploads_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY withdrawals
    ADD CONSTRAINT fk_withdrawals_archive_id FOREIGN KEY (archive_id) REFERENCES archives(id);

ALTER TABLE ONLY procrastinate_events
    ADD CONSTRAINT procrastinate_events_job_id_fkey FOREIGN KEY (job_id) REFERENCES procrastinate_jobs(id) ON DELETE CASCADE;

ALTER TABLE ONLY procrastinate_jobs
    ADD CONSTRAINT procrastinate_jobs_worker_id_fkey FOREIGN KEY (worker_id) REFERENCES procrastinate_workers(id) ON DELETE SET NULL;

ALTER TABLE ONLY procrastinate_periodic_defers
    ADD CONSTRAINT procrastinate_periodic_defers_job_id_fkey FOREIGN KEY (job_id) REFERENCES procrastinate_jobs(id);
