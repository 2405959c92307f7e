#!/usr/bin/env bash
# Makes what is secret in an installation, once: files below deploy/secrets, and deploy/.env. What is there stays as it is.
#
#     deploy/secrets.sh                        # for compose
#     deploy/secrets.sh kubernetes NAMESPACE   # the same, as the secrets `longshore` and `longshore-stores` of a namespace
#
# Needs openssl and age-keygen (Debian: openssl, age). POSTGRES_HOST and REDIS_HOST say where the stores are (postgres, redis).
set -euo pipefail
cd "$(dirname "$0")"

for program in openssl age-keygen; do
  command -v "$program" >/dev/null || { echo "secrets.sh: $program is not installed (Debian: apt-get install openssl age)" >&2; exit 2; }
done

umask 077
mkdir -p secrets

# Letters and digits of the system's randomness: they need no quotes in a URL.
random() { LC_ALL=C tr -dc 'A-Za-z0-9' < <(openssl rand -base64 $(($1 * 4))) | head -c "$1" || true; }

# Writes a file unless it is there. Readable, because each container reads it as a user of its own; the folder above is closed.
keep() {
  if [ ! -e "secrets/$1" ]; then
    cat > "secrets/$1"
    chmod 0444 "secrets/$1"
    echo "made secrets/$1"
  else
    cat > /dev/null
  fi
}

random 40 | keep postgres_password
random 40 | keep postgres_longshore_password
random 40 | keep postgres_exporter_password
random 40 | keep redis_password
random 24 | keep grafana_password
printf 'lsk_%s_%s\n' "$(random 8)" "$(random 43)" | keep admin_key
# Yours, to be written over: the key of a real provider, and who is told of alerts (monitoring/alertmanager.yml).
printf '' | keep provider_key
for receiver in pager_routing_key mail_password dead_mans_switch_token; do echo not-set | keep "$receiver"; done
echo http://127.0.0.1:9/not-set | keep chat_url
# As `longshore credential master-key` and `longshore key signing-key` make them: 32 random bytes.
key() { printf '%s%s\n' "$1" "$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=')"; }
key lmk_ | keep master_key
key ltk_ | keep signing_key

postgres=${POSTGRES_HOST:-postgres} redis=${REDIS_HOST:-redis}
printf 'postgres://longshore:%s@%s/longshore\n' "$(cat secrets/postgres_longshore_password)" "$postgres" | keep journal_url
printf 'redis://:%s@%s\n' "$(cat secrets/redis_password)" "$redis" | keep dispatcher_url
printf 'requirepass %s\n' "$(cat secrets/redis_password)" | keep redis_conf
printf '{"redis://redis:6379":"%s"}\n' "$(cat secrets/redis_password)" | keep redis_exporter_passwords

# Two who can open backups: this installation, for its weekly drill, and one whose secret key belongs into a safe, elsewhere.
age-keygen 2>/dev/null | keep backup_identity
age-keygen 2>/dev/null | keep backup_identity_of_the_safe
recipients=$(for who in backup_identity backup_identity_of_the_safe; do age-keygen -y "secrets/$who"; done | paste -sd, -)

[ -e .env ] || cp .env.example .env
grep -q '^LONGSHORE_BACKUP_RECIPIENTS=.' .env || {
  sed -i "s|^LONGSHORE_BACKUP_RECIPIENTS=.*|LONGSHORE_BACKUP_RECIPIENTS=$recipients|" .env
  echo "wrote the recipients of backups into .env"
}

if [ "${1:-}" = kubernetes ]; then
  namespace=${2:?the namespace}
  # A copy is made by the server: nothing of this stands in a manifest, in a shell's history or among a process' arguments.
  apply() { kubectl --namespace "$namespace" create secret generic "$@" --dry-run=client -o yaml | kubectl --namespace "$namespace" apply -f -; }
  file() { printf -- '--from-file=%s=secrets/%s ' "$1" "$2"; }
  # shellcheck disable=SC2046 # names of ours, without spaces
  apply longshore $(file journal-url journal_url) $(file dispatcher-url dispatcher_url) $(file master-key master_key) \
    $(file provider-key provider_key) $(file admin-key admin_key) $(file signing-key signing_key) $(file backup-identity backup_identity)
  # shellcheck disable=SC2046
  apply longshore-stores $(file postgres-password postgres_password) $(file longshore-password postgres_longshore_password) \
    $(file exporter-password postgres_exporter_password) $(file redis-conf redis_conf) $(file redis-password redis_password)
fi

cat <<'SAID'
Keep copies elsewhere: secrets/master_key (without it tenants' keys have to be set anew) and, in a safe and then no longer here,
secrets/backup_identity_of_the_safe.
SAID
