#!/usr/bin/env bash
# Runs once, in an empty Postgres: the roles that are no superusers, since a superuser passes every wall between tenants.
set -euo pipefail
secret() { cat "/run/secrets/$1"; }

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set journal="$(secret postgres_longshore_password)" --set exporter="$(secret postgres_exporter_password)" <<'SQL'
-- CREATEROLE: `longshore migrate` makes the two roles that keep tenants apart. CREATEDB: drills restore into a database of their own.
CREATE ROLE longshore LOGIN CREATEROLE CREATEDB PASSWORD :'journal';
CREATE DATABASE longshore OWNER longshore ENCODING 'UTF8' TEMPLATE template0;
CREATE ROLE exporter LOGIN PASSWORD :'exporter' IN ROLE pg_monitor;
GRANT CONNECT ON DATABASE longshore TO exporter;
SQL
