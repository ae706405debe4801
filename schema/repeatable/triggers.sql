-- Trigger functions; which table has which trigger follows from its class.

-- Records a row's change. TG_ARGV names the primary key's columns. SECURITY DEFINER: who changes a row may not write here.
CREATE OR REPLACE FUNCTION record_change()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_old jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    v_new jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    v_old_pk jsonb := (SELECT jsonb_object_agg(c, v_old -> c) FROM unnest(TG_ARGV) AS c);
    v_new_pk jsonb := (SELECT jsonb_object_agg(c, v_new -> c) FROM unnest(TG_ARGV) AS c);
BEGIN
    IF v_old IS NOT NULL AND (v_new IS NULL OR v_old_pk <> v_new_pk) THEN
        INSERT INTO _changes (table_name, op, pk) VALUES (TG_TABLE_NAME, 'delete', v_old_pk);
    END IF;
    IF v_new IS NOT NULL THEN
        INSERT INTO _changes (table_name, op, pk, image) VALUES (TG_TABLE_NAME, lower(TG_OP), v_new_pk, v_new);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION refuse_change()
RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
