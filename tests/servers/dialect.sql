-- What SQLite has and Postgres has not, in the words in which the cases of the store look behind its back (tests/stored.c).
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE integrity_constraint_violation USING MESSAGE = TG_ARGV[0]; END$$;
CREATE AGGREGATE group_concat(text, text) (SFUNC = string_agg_transfn, STYPE = internal, FINALFUNC = string_agg_finalfn);
CREATE FUNCTION json_array_length(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
	$$SELECT json_array_length($1::json)::bigint$$;
CREATE FUNCTION julianday(text) RETURNS double precision LANGUAGE sql AS
	$$SELECT extract(epoch FROM CASE $1 WHEN 'now' THEN clock_timestamp() ELSE $1::timestamptz END) / 86400$$;
CREATE FUNCTION strftime(text, text, text) RETURNS text LANGUAGE sql AS
	$$SELECT to_char((clock_timestamp() + $3::interval) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')$$;
CREATE FUNCTION joined(bigint, bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT $1::text || $2::text$$;
CREATE OPERATOR || (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = joined);
