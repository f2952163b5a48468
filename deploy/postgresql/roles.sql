-- The role with which servers use a database: it has rights on rows, and owns nothing, so row-level
-- security holds for it. Run this as the role that migrates, before or after `memoryd migrate`, as
-- often as you like:
--
--   ROLE_PASSWORD=... psql --set=ON_ERROR_STOP=1 --file=roles.sql memoryd
--
-- It needs CREATEROLE where the role is not there yet. --set=server=NAME gives it another name.

\if :{?server}
\else
    \set server memoryd_server
\endif
\getenv password ROLE_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', :'server')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'server')
\gexec

\if :{?password}
    ALTER ROLE :"server" PASSWORD :'password';
\endif

GRANT USAGE ON SCHEMA public TO :"server";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"server";
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"server";

-- Servers have new tables analysed, which is a right of its own since PostgreSQL 17.
SELECT format(statement, :'server')
FROM (VALUES
    ('GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO %I'),
    ('ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT MAINTAIN ON TABLES TO %I')
) AS rights (statement)
WHERE current_setting('server_version_num')::int >= 170000
\gexec
