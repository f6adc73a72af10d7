CREATE FUNCTION public.fleetgate_commit(p_writer text, p_batch bigint, p_schema integer, p_units json) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
DECLARE
    v_head bigint;
    v_before bigint;
    v_last bigint;
    v_outcomes text[];
    v_outcome text;
    v_unit json;
    v_field text[];
    v_at int;
    v_change int;
    v_kind text;
    v_id text;
    v_version int;
    v_record text;
    v_index text;
    v_holder text;
BEGIN
    SELECT audit_seq INTO STRICT v_head FROM meta WHERE one = 1 FOR UPDATE;
    SELECT batch, outcomes INTO v_last, v_outcomes FROM receipt WHERE writer = p_writer;
    IF v_last = p_batch THEN
        RETURN v_outcomes;
    ELSIF v_last > p_batch THEN
        RAISE EXCEPTION 'a later batch was committed' USING ERRCODE = 'FG003';
    END IF;
    IF p_schema <> (SELECT version_num::int FROM schema_version) THEN
        RAISE EXCEPTION 'the database has another schema' USING ERRCODE = 'FG002';
    END IF;
    v_before := v_head;
    v_outcomes := array[]::text[];
    FOR v_unit IN SELECT value FROM json_array_elements(p_units) LOOP
        BEGIN
            v_field := ARRAY(SELECT json_array_elements_text(v_unit));
            v_at := 2;
            FOR v_number IN 1 .. v_field[1]::int LOOP
                v_change := v_number;
                v_kind := v_field[v_at];
                v_id := v_field[v_at + 1];
                v_version := v_field[v_at + 2]::int;
                v_record := v_field[v_at + 3];
                v_at := v_at + 4;
                CASE v_kind

                WHEN 'account' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM account WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO account (id, version, record, broker) VALUES (v_id, 1, v_record, v_field[v_at + 0]);
                        v_at := v_at + 1;
                    ELSE
                        UPDATE account SET (version, record, broker) = ROW (v_version + 1, v_record, v_field[v_at + 0]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 1;
                    END IF;
                WHEN 'provision_user' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM provision_user WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO provision_user (id, version, record, account) VALUES (v_id, 1, v_record, v_field[v_at + 0]);
                        v_at := v_at + 1;
                    ELSE
                        UPDATE provision_user SET (version, record, account) = ROW (v_version + 1, v_record, v_field[v_at + 0]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 1;
                    END IF;
                WHEN 'request' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM request WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO request (id, version, record, login, client_id, grant_user, any_login, any_client_id, folded_client_id, open_keyless_username, open_username, username, account, state) VALUES (v_id, 1, v_record, v_field[v_at + 0], v_field[v_at + 1], v_field[v_at + 2], v_field[v_at + 3], v_field[v_at + 4], v_field[v_at + 5], v_field[v_at + 6], v_field[v_at + 7], v_field[v_at + 8], v_field[v_at + 9], v_field[v_at + 10]);
                        v_at := v_at + 11;
                    ELSE
                        UPDATE request SET (version, record, login, client_id, grant_user, any_login, any_client_id, folded_client_id, open_keyless_username, open_username, username, account, state) = ROW (v_version + 1, v_record, v_field[v_at + 0], v_field[v_at + 1], v_field[v_at + 2], v_field[v_at + 3], v_field[v_at + 4], v_field[v_at + 5], v_field[v_at + 6], v_field[v_at + 7], v_field[v_at + 8], v_field[v_at + 9], v_field[v_at + 10]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 11;
                    END IF;
                WHEN 'device' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM device WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO device (id, version, record, request, client_id, any_client_id, account, state) VALUES (v_id, 1, v_record, v_field[v_at + 0], v_field[v_at + 1], v_field[v_at + 2], v_field[v_at + 3], v_field[v_at + 4]);
                        v_at := v_at + 5;
                    ELSE
                        UPDATE device SET (version, record, request, client_id, any_client_id, account, state) = ROW (v_version + 1, v_record, v_field[v_at + 0], v_field[v_at + 1], v_field[v_at + 2], v_field[v_at + 3], v_field[v_at + 4]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 5;
                    END IF;
                WHEN 'account_user' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM account_user WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO account_user (id, version, record, device, account) VALUES (v_id, 1, v_record, v_field[v_at + 0], v_field[v_at + 1]);
                        v_at := v_at + 2;
                    ELSE
                        UPDATE account_user SET (version, record, device, account) = ROW (v_version + 1, v_record, v_field[v_at + 0], v_field[v_at + 1]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 2;
                    END IF;
                WHEN 'effect' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM effect WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO effect (id, version, record, broker) VALUES (v_id, 1, v_record, v_field[v_at + 0]);
                        v_at := v_at + 1;
                    ELSE
                        UPDATE effect SET (version, record, broker) = ROW (v_version + 1, v_record, v_field[v_at + 0]) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 1;
                    END IF;
                WHEN 'epoch' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM epoch WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO epoch (id, version, record) VALUES (v_id, 1, v_record);
                        v_at := v_at + 0;
                    ELSE
                        UPDATE epoch SET (version, record) = ROW (v_version + 1, v_record) WHERE id = v_id AND version = v_version;
                        v_at := v_at + 0;
                    END IF;
                END CASE;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'stale' USING ERRCODE = 'FG001';
                END IF;
            END LOOP;
            IF v_at <= cardinality(v_field) THEN
                INSERT INTO audit (seq, record)
                SELECT v_head + number, record
                FROM unnest(v_field[v_at:]) WITH ORDINALITY AS line (record, number);
            END IF;
            v_head := v_head + cardinality(v_field) - v_at + 1;
            v_outcome := v_head;
        EXCEPTION
            WHEN SQLSTATE 'FG001' THEN
                v_outcome := concat_ws(' ', 'stale', v_kind, v_version, v_id);
            WHEN unique_violation THEN
                GET STACKED DIAGNOSTICS v_index = CONSTRAINT_NAME;
                v_holder := NULL;
                CASE v_index

                WHEN 'request_by_login' THEN
                    v_index := 'login';
                    SELECT id INTO v_holder FROM request WHERE login = v_field[v_at + 0];
                WHEN 'request_by_client_id' THEN
                    v_index := 'client_id';
                    SELECT id INTO v_holder FROM request WHERE client_id = v_field[v_at + 1];
                WHEN 'device_by_request' THEN
                    v_index := 'request';
                    SELECT id INTO v_holder FROM device WHERE request = v_field[v_at + 0];
                WHEN 'device_by_client_id' THEN
                    v_index := 'client_id';
                    SELECT id INTO v_holder FROM device WHERE client_id = v_field[v_at + 1];
                WHEN v_kind || '_pkey' THEN
                    v_index := NULL;
                ELSE
                    RAISE;
                END CASE;
                v_outcome := CASE
                    WHEN v_index IS NULL THEN concat_ws(' ', 'stale', v_kind, v_version, v_id)
                    ELSE concat_ws(' ', 'taken', v_kind, v_index, v_change, v_holder)
                END;
            WHEN OTHERS THEN
                v_outcome := 'failed ' || SQLSTATE;
        END;
        v_outcomes := v_outcomes || v_outcome;
    END LOOP;
    IF v_head > v_before THEN
        UPDATE meta SET audit_seq = v_head WHERE one = 1;
        PERFORM pg_notify('fleetgate_audit', v_head::text);
    END IF;
    INSERT INTO receipt (writer, batch, outcomes) VALUES (p_writer, p_batch, v_outcomes)
    ON CONFLICT (writer) DO UPDATE SET batch = p_batch, outcomes = v_outcomes, at = now();
    RETURN v_outcomes;
END
$$;

CREATE TABLE public.account (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    broker text COLLATE pg_catalog."C"
);

CREATE TABLE public.account_user (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    device text COLLATE pg_catalog."C",
    account text COLLATE pg_catalog."C"
);

CREATE TABLE public.audit (
    seq bigint NOT NULL,
    record text NOT NULL
);

CREATE TABLE public.device (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    request text COLLATE pg_catalog."C",
    client_id text COLLATE pg_catalog."C",
    any_client_id text COLLATE pg_catalog."C",
    account text COLLATE pg_catalog."C",
    state text COLLATE pg_catalog."C"
);

CREATE TABLE public.effect (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    broker text COLLATE pg_catalog."C"
);

CREATE TABLE public.epoch (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL
);

CREATE TABLE public.lease (
    name text NOT NULL,
    holder text NOT NULL,
    fence bigint NOT NULL,
    until timestamp with time zone NOT NULL
);

CREATE TABLE public.meta (
    one integer NOT NULL,
    audit_seq bigint NOT NULL,
    CONSTRAINT meta_one_check CHECK ((one = 1))
);

CREATE TABLE public.provision_user (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    account text COLLATE pg_catalog."C"
);

CREATE TABLE public.receipt (
    writer text NOT NULL,
    batch bigint NOT NULL,
    outcomes text[] NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.request (
    id text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    record text NOT NULL,
    login text COLLATE pg_catalog."C",
    client_id text COLLATE pg_catalog."C",
    grant_user text COLLATE pg_catalog."C",
    any_login text COLLATE pg_catalog."C",
    any_client_id text COLLATE pg_catalog."C",
    folded_client_id text COLLATE pg_catalog."C",
    open_keyless_username text COLLATE pg_catalog."C",
    open_username text COLLATE pg_catalog."C",
    username text COLLATE pg_catalog."C",
    account text COLLATE pg_catalog."C",
    state text COLLATE pg_catalog."C"
);

CREATE TABLE public.schema_version (
    version_num character varying(32) NOT NULL
);

INSERT INTO public.account VALUES ('acme', 1, '{"id":"acme","broker":"local","broker_url":"mqtts://broker.example:8883","created_at":"2026-03-01T12:00:00.123456+00:00","coupling":"STRICT","certificates":"off","enabled":true,"version":1}', 'local');

INSERT INTO public.account_user VALUES ('acme/user-1', 1, '{"id":"acme/user-1","account":"acme","username":"user-1","client_id":"gw1","broker":"local","device_id":"dev-000001","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-000001', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1000', 1, '{"id":"acme/user-1000","account":"acme","username":"user-1000","client_id":"gw1000","broker":"local","device_id":"dev-001000","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001000', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1001', 1, '{"id":"acme/user-1001","account":"acme","username":"user-1001","client_id":"gw1001","broker":"local","device_id":"dev-001001","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001001', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1002', 1, '{"id":"acme/user-1002","account":"acme","username":"user-1002","client_id":"gw1002","broker":"local","device_id":"dev-001002","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001002', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1003', 1, '{"id":"acme/user-1003","account":"acme","username":"user-1003","client_id":"gw1003","broker":"local","device_id":"dev-001003","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001003', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1004', 1, '{"id":"acme/user-1004","account":"acme","username":"user-1004","client_id":"gw1004","broker":"local","device_id":"dev-001004","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001004', 'acme');
INSERT INTO public.account_user VALUES ('acme/user-1005', 1, '{"id":"acme/user-1005","account":"acme","username":"user-1005","client_id":"gw1005","broker":"local","device_id":"dev-001005","verifier":"hmac-sha256$k1$BBBB","created_at":"2026-03-01T12:00:00.123456+00:00","permissions":["broker:connect"],"reserved":false,"coupling":"STRICT","enabled":true,"certificates":[],"version":1}', 'dev-001005', 'acme');

INSERT INTO public.audit VALUES (1, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"request.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"each","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (2, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001000","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (3, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001000","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (4, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001001","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (5, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001001","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (6, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001002","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (7, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001002","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (8, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001003","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (9, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001003","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (10, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001004","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (11, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001004","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (12, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"provision.granted","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001005","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (13, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"user.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"req-001005","address":null,"details":{},"seq":0}');
INSERT INTO public.audit VALUES (14, '{"at":"2026-03-01T12:00:00.123456+00:00","actor":"admin:ada","action":"request.create","outcome":"ok","reason":null,"account":null,"client_id":null,"username":null,"subject":"again","address":null,"details":{},"seq":0}');

INSERT INTO public.device VALUES ('dev-000001', 1, '{"id":"dev-000001","account":"acme","client_id":"gw1","request":"req-000001","connection":{"user":"user-1","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-000001', 'acme/gw1', 'gw1', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001000', 1, '{"id":"dev-001000","account":"acme","client_id":"gw1000","request":"req-001000","connection":{"user":"user-1000","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1000"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001000', 'acme/gw1000', 'gw1000', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001001', 1, '{"id":"dev-001001","account":"acme","client_id":"gw1001","request":"req-001001","connection":{"user":"user-1001","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1001"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001001', 'acme/gw1001', 'gw1001', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001002', 1, '{"id":"dev-001002","account":"acme","client_id":"gw1002","request":"req-001002","connection":{"user":"user-1002","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1002"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001002', 'acme/gw1002', 'gw1002', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001003', 1, '{"id":"dev-001003","account":"acme","client_id":"gw1003","request":"req-001003","connection":{"user":"user-1003","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1003"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001003', 'acme/gw1003', 'gw1003', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001004', 1, '{"id":"dev-001004","account":"acme","client_id":"gw1004","request":"req-001004","connection":{"user":"user-1004","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1004"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001004', 'acme/gw1004', 'gw1004', 'acme', 'provisioned');
INSERT INTO public.device VALUES ('dev-001005', 1, '{"id":"dev-001005","account":"acme","client_id":"gw1005","request":"req-001005","connection":{"user":"user-1005","coupling":"INHERITED","reserved_user":null,"last_seen_at":"2026-03-01T12:00:00.123456+00:00","address":null,"status":"unknown","status_at":null,"newest":null},"created_at":"2026-03-01T12:00:00.123456+00:00","state":"provisioned","metadata":{"serial_number":"S1005"},"certificate_serial":null,"certificate_ends_at":null,"version":1}', 'req-001005', 'acme/gw1005', 'gw1005', 'acme', 'provisioned');

INSERT INTO public.effect VALUES ('acme/user-1', 1, '{"id":"acme/user-1","verb":"apply","broker":"local","account":"acme","username":"user-1","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1000', 1, '{"id":"acme/user-1000","verb":"apply","broker":"local","account":"acme","username":"user-1000","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1001', 1, '{"id":"acme/user-1001","verb":"apply","broker":"local","account":"acme","username":"user-1001","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1002', 1, '{"id":"acme/user-1002","verb":"apply","broker":"local","account":"acme","username":"user-1002","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1003', 1, '{"id":"acme/user-1003","verb":"apply","broker":"local","account":"acme","username":"user-1003","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1004', 1, '{"id":"acme/user-1004","verb":"apply","broker":"local","account":"acme","username":"user-1004","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');
INSERT INTO public.effect VALUES ('acme/user-1005', 1, '{"id":"acme/user-1005","verb":"apply","broker":"local","account":"acme","username":"user-1005","created_at":"2026-03-01T12:00:00.123456+00:00","version":1}', 'local');

INSERT INTO public.epoch VALUES ('store', 1, '{"id":"store","number":2,"began_at":"2026-03-01T12:00:00.123456+00:00","filling":null,"moved_to":null,"version":1}');

INSERT INTO public.meta VALUES (1, 14);

INSERT INTO public.provision_user VALUES ('lobby', 1, '{"id":"lobby","account":"acme","verifier":"hmac-sha256$k1$CCCC","created_at":"2026-03-01T12:00:00.123456+00:00","link_verifier":null,"version":1}', 'acme');

INSERT INTO public.receipt VALUES ('9aba080269f24df79a0eb1572be4a3dc', 9, '{14}', '2026-11-22 07:44:17.201106+00');

INSERT INTO public.request VALUES ('req-000001', 1, '{"id":"req-000001","account":"acme","client_id":"gw1","client_id_claim":"gw1","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":"2026-03-02T12:00:00.123456+00:00","key_verifier":"hmac-sha256$k1$AAAA","endpoint":"mqtts://broker.example:8883","reserve_user":true,"coupling":"INHERITED","configuration":{"net":{"ntp":["a",1,2.5,null,true]},"größe":"☃"},"packages":[{"name":"heater","version":"1.0","url":"https://example/heater.dp","sha256":"0000000000000000000000000000000000000000000000000000000000000000"}],"max_attempts":3,"approval":"not_required","state":"granted","attempts":2,"key_failures":1,"key_blocked_until":"2026-03-01T12:00:00+00:00","arm":1,"epoch":1,"grant":{"message_id":"m1","granted_at":"2026-03-01T12:00:00.123456+00:00","device_id":"dev-1","username":"dev-1","sealed":"gcm1$k1$AAAA","csr_digest":null,"certificate_serial":null,"certificate_ends_at":null,"told_to":null},"confirmed_at":null,"version":1}', 'lobby/gw1', 'gw1', 'acme/dev-1', 'lobby/gw1', 'gw1', 'gw1', NULL, 'lobby', 'lobby', 'acme', 'granted');
INSERT INTO public.request VALUES ('req-000002', 1, '{"id":"req-000002","account":"acme","client_id":"gw2","client_id_claim":"gw2","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw2', 'gw2', NULL, 'lobby/gw2', 'gw2', 'gw2', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001001', 1, '{"id":"req-001001","account":"acme","client_id":"gw1001","client_id_claim":"gw1001","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw1001', 'gw1001', NULL, 'lobby/gw1001', 'gw1001', 'gw1001', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001002', 1, '{"id":"req-001002","account":"acme","client_id":"gw1002","client_id_claim":"gw1002","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw1002', 'gw1002', NULL, 'lobby/gw1002', 'gw1002', 'gw1002', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001003', 1, '{"id":"req-001003","account":"acme","client_id":"gw1003","client_id_claim":"gw1003","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw1003', 'gw1003', NULL, 'lobby/gw1003', 'gw1003', 'gw1003', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001004', 1, '{"id":"req-001004","account":"acme","client_id":"gw1004","client_id_claim":"gw1004","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw1004', 'gw1004', NULL, 'lobby/gw1004', 'gw1004', 'gw1004', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001005', 1, '{"id":"req-001005","account":"acme","client_id":"gw1005","client_id_claim":"gw1005","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":0,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":1}', 'lobby/gw1005', 'gw1005', NULL, 'lobby/gw1005', 'gw1005', 'gw1005', 'lobby', 'lobby', 'lobby', 'acme', 'pending');
INSERT INTO public.request VALUES ('req-001000', 2, '{"id":"req-001000","account":"acme","client_id":"gw1000","client_id_claim":"gw1000","username":"lobby","activates_on":"2026-03-01T12:00:00.123456+00:00","created_at":"2026-03-01T12:00:00.123456+00:00","created_by":"admin:ada","expires_on":null,"key_verifier":null,"endpoint":null,"reserve_user":false,"coupling":"INHERITED","configuration":{},"packages":[],"max_attempts":null,"approval":"not_required","state":"pending","attempts":3,"key_failures":0,"key_blocked_until":null,"arm":1,"epoch":1,"grant":null,"confirmed_at":null,"version":2}', 'lobby/gw1000', 'gw1000', NULL, 'lobby/gw1000', 'gw1000', 'gw1000', 'lobby', 'lobby', 'lobby', 'acme', 'pending');

INSERT INTO public.schema_version VALUES ('1');

ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.account_user
    ADD CONSTRAINT account_user_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY public.device
    ADD CONSTRAINT device_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.effect
    ADD CONSTRAINT effect_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.epoch
    ADD CONSTRAINT epoch_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (one);

ALTER TABLE ONLY public.provision_user
    ADD CONSTRAINT provision_user_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.receipt
    ADD CONSTRAINT receipt_pkey PRIMARY KEY (writer);

ALTER TABLE ONLY public.request
    ADD CONSTRAINT request_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);

CREATE INDEX account_by_broker ON public.account USING btree (broker, id) WHERE (broker IS NOT NULL);

CREATE INDEX account_user_by_account ON public.account_user USING btree (account, id) WHERE (account IS NOT NULL);

CREATE INDEX account_user_by_device ON public.account_user USING btree (device, id) WHERE (device IS NOT NULL);

CREATE INDEX device_by_account ON public.device USING btree (account, id) WHERE (account IS NOT NULL);

CREATE INDEX device_by_account_state ON public.device USING btree (account, state, id) WHERE ((account IS NOT NULL) AND (state IS NOT NULL));

CREATE INDEX device_by_any_client_id ON public.device USING btree (any_client_id, id) WHERE (any_client_id IS NOT NULL);

CREATE UNIQUE INDEX device_by_client_id ON public.device USING btree (client_id) WHERE (client_id IS NOT NULL);

CREATE UNIQUE INDEX device_by_request ON public.device USING btree (request) WHERE (request IS NOT NULL);

CREATE INDEX device_by_state ON public.device USING btree (state, id) WHERE (state IS NOT NULL);

CREATE INDEX effect_by_broker ON public.effect USING btree (broker, id) WHERE (broker IS NOT NULL);

CREATE INDEX provision_user_by_account ON public.provision_user USING btree (account, id) WHERE (account IS NOT NULL);

CREATE INDEX request_by_account ON public.request USING btree (account, id) WHERE (account IS NOT NULL);

CREATE INDEX request_by_account_state ON public.request USING btree (account, state, id) WHERE ((account IS NOT NULL) AND (state IS NOT NULL));

CREATE INDEX request_by_any_client_id ON public.request USING btree (any_client_id, id) WHERE (any_client_id IS NOT NULL);

CREATE INDEX request_by_any_login ON public.request USING btree (any_login, id) WHERE (any_login IS NOT NULL);

CREATE UNIQUE INDEX request_by_client_id ON public.request USING btree (client_id) WHERE (client_id IS NOT NULL);

CREATE INDEX request_by_folded_client_id ON public.request USING btree (folded_client_id, id) WHERE (folded_client_id IS NOT NULL);

CREATE INDEX request_by_grant_user ON public.request USING btree (grant_user, id) WHERE (grant_user IS NOT NULL);

CREATE UNIQUE INDEX request_by_login ON public.request USING btree (login) WHERE (login IS NOT NULL);

CREATE INDEX request_by_open_keyless_username ON public.request USING btree (open_keyless_username, id) WHERE (open_keyless_username IS NOT NULL);

CREATE INDEX request_by_open_username ON public.request USING btree (open_username, id) WHERE (open_username IS NOT NULL);

CREATE INDEX request_by_state ON public.request USING btree (state, id) WHERE (state IS NOT NULL);

CREATE INDEX request_by_username ON public.request USING btree (username, id) WHERE (username IS NOT NULL);
