"""Schema 1, what PostgreSQL alone has: the function that commits units, receipts of commits, and leases.

``fleetgate_commit(writer, batch, schema, units)`` applies a batch of units in one transaction, each in a subtransaction
of its own, and returns one outcome a unit:

    <seq>                                   applied; the seq of the log after it
    stale <kind> <version> <id>             refused: StaleVersion
    taken <kind> <index> <change> [holder]  refused: Duplicate; change: its number in the unit, from 1. The holder's id,
                                            where it is not a record of the unit itself
    failed <SQLSTATE>                       not applied, for whatever reason the database had

A unit is an array of texts: the number of its changes, then each change (kind, id, version, record, and but for a
delete, which has NULL as its record, the values of its indexes), then the audit rows.

Commits take the lock on the head of the audit log first of all, so that its seqs have no gaps and become visible in
order, whichever process commits, and no two commits wait for each other's records in a circle.

Each writer's last batch leaves a receipt. A batch that is sent again because its connection broke is not applied again:
it gets the outcomes that it had. One that comes late, after a later batch of the same writer, is refused.
"""

from collections.abc import Mapping

# kind -> (indexes of one holder, of many, ...)
Kinds = Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]]

# fence: how often the lease passed on. until: -infinity when it was released.
_TABLES = (
    """CREATE TABLE receipt (
        writer text PRIMARY KEY, batch bigint NOT NULL, outcomes text[] NOT NULL, at timestamptz NOT NULL DEFAULT now()
    )""",
    """CREATE TABLE lease (
        name text PRIMARY KEY, holder text NOT NULL, fence bigint NOT NULL, until timestamptz NOT NULL
    )""",
)

_FUNCTION = """
CREATE FUNCTION fleetgate_commit(p_writer text, p_batch bigint, p_schema int, p_units json) RETURNS text[]
LANGUAGE plpgsql AS $function$
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
{changes}
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
{holders}
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
$function$
"""

_CHANGE = """
                WHEN '{kind}' THEN
                    IF v_record IS NULL THEN
                        DELETE FROM {kind} WHERE id = v_id AND version = v_version;
                    ELSIF v_version = 0 THEN
                        INSERT INTO {kind} ({columns}) VALUES ({values});
                        v_at := v_at + {width};
                    ELSE
                        UPDATE {kind} SET ({changed}) = ROW ({new}) WHERE id = v_id AND version = v_version;
                        v_at := v_at + {width};
                    END IF;"""

# The position is that of the change that was refused, whose values begin there.
_HOLDER = """
                WHEN '{kind}_by_{name}' THEN
                    v_index := '{name}';
                    SELECT id INTO v_holder FROM {kind} WHERE {name} = v_field[v_at + {offset}];"""


def statements(kinds: Kinds) -> list[str]:
    """What makes them, for tables of these kinds."""
    changes = (_change(kind, unique + shared) for kind, (unique, shared, _) in kinds.items())
    holders = (
        _HOLDER.format(kind=kind, name=name, offset=offset)
        for kind, (unique, _, _) in kinds.items()
        for offset, name in enumerate(unique)
    )
    function = _FUNCTION.replace("{changes}", "".join(changes)).replace("{holders}", "".join(holders))
    return [*_TABLES, function]


def _change(kind: str, names: tuple[str, ...]) -> str:
    values = [f"v_field[v_at + {offset}]" for offset in range(len(names))]
    return _CHANGE.format(
        kind=kind,
        columns=", ".join(("id", "version", "record", *names)),
        values=", ".join(("v_id", "1", "v_record", *values)),
        changed=", ".join(("version", "record", *names)),
        new=", ".join(("v_version + 1", "v_record", *values)),
        width=len(names),
    )
