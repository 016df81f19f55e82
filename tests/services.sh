#!/usr/bin/env bash
# Runs a command with a real PostgreSQL and a real Redis of its own:
#
#     tests/services.sh COMMAND [ARGUMENT…]
#
# Servers named by PECULIAR_TEST_POSTGRES or PECULIAR_TEST_REDIS are used as they are. Any other is started on a
# free loopback port in a scratch folder, from the programs found on this machine; programs that are missing, with
# the browser for the tests of the page (PECULIAR_TEST_CHROMIUM names another) and STILTS, which validates the Virtual
# Observatory's protocols from outside, are installed with apt-get where that may be done without a password. Both
# servers are stopped when the command ends.
set -euo pipefail

scratch=$(mktemp -d "${TMPDIR:-/tmp}/peculiar-test.XXXXXX")
redis_pid=""
postgres_data=""

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# PostgreSQL refuses to run as root. There its programs run as another account.
account=""
if [ "$(id -u)" = 0 ]; then
  for name in postgres nobody; do
    if id "$name" >/dev/null 2>&1; then account=$name; break; fi
  done
fi
as_account() {
  if [ -z "$account" ]; then "$@"
  elif command -v runuser >/dev/null; then (cd / && runuser -u "$account" -- "$@")
  elif command -v setpriv >/dev/null; then
    (cd / && setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups -- "$@")
  else die "make test runs as root, and PostgreSQL does not: install runuser or setpriv, or run it as a user"
  fi
}

stop() {
  status=$?
  trap - EXIT INT TERM HUP
  if [ -n "$redis_pid" ]; then kill "$redis_pid" 2>/dev/null || true; wait "$redis_pid" 2>/dev/null || true; fi
  if [ -n "$postgres_data" ]; then
    as_account "$postgres_bin/pg_ctl" -D "$postgres_data" -m immediate -w stop >/dev/null 2>&1 || true
  fi
  rm -rf "$scratch"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

find_postgres() {  # sets postgres_bin to the newest installed version's folder
  local folder
  postgres_bin=""
  for folder in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin 2>/dev/null \
                  | sort -V); do
    if [ -x "$folder/initdb" ]; then postgres_bin=$folder; fi
  done
  if [ -z "$postgres_bin" ] && command -v initdb >/dev/null && command -v pg_ctl >/dev/null; then
    postgres_bin=$(dirname "$(readlink -f "$(command -v initdb)")")
  fi
  [ -n "$postgres_bin" ]
}

find_redis() {  # sets redis_server; valkey speaks the same protocol
  redis_server=$(command -v redis-server || command -v valkey-server || true)
  [ -n "$redis_server" ]
}

install() {  # install PACKAGE [VARIABLE]
  local sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
  if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
    say "installing $1 from the system's packages"
    if [ -z "${updated:-}" ]; then "${sudo[@]}" apt-get update -qq >&2 || true; updated=yes; fi
    # The package's own server is not wanted: nothing may start by itself here.
    if "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
         apt-get install -y -qq --no-install-recommends "$1" >&2; then return; fi
  fi
  die "the tests need $1: install it (apt-get install $1)${2:+, or let $2 name one}"
}

free_port() {
  "${PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_postgres() {
  find_postgres || { install postgresql PECULIAR_TEST_POSTGRES; find_postgres; } ||
    die "PostgreSQL was installed, yet its initdb is nowhere to be found"
  # Installing it may have made the account that it runs under.
  if [ -n "$account" ] && id postgres >/dev/null 2>&1; then account=postgres; fi
  local port log
  port=$(free_port)
  chmod 711 "$scratch"
  mkdir "$scratch/postgres"
  log=$scratch/postgres/log
  if [ -n "$account" ]; then chown "$account" "$scratch/postgres"; fi
  as_account "$postgres_bin/initdb" -D "$scratch/postgres/data" -U peculiar -A trust -E UTF8 --locale=C -N \
    >"$scratch/initdb" 2>&1 || { cat "$scratch/initdb" >&2; die "initdb failed"; }
  postgres_data=$scratch/postgres/data
  # Test data need not survive a power cut, so nothing waits for the disk.
  as_account "$postgres_bin/pg_ctl" -D "$postgres_data" -l "$log" -w -t 60 -o \
    "-h 127.0.0.1 -p $port -c unix_socket_directories= -c fsync=off -c full_page_writes=off" start >/dev/null ||
    { cat "$log" >&2; die "PostgreSQL did not start"; }
  export PECULIAR_TEST_POSTGRES=postgresql+psycopg://peculiar@127.0.0.1:$port/postgres
}

start_redis() {
  find_redis || { install redis-server PECULIAR_TEST_REDIS; find_redis; } ||
    die "Redis was installed, yet redis-server is nowhere to be found"
  local port
  port=$(free_port)
  "$redis_server" --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$scratch" \
    --logfile "$scratch/redis.log" >/dev/null &
  redis_pid=$!
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      export PECULIAR_TEST_REDIS=redis://127.0.0.1:$port
      return
    fi
    kill -0 "$redis_pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$scratch/redis.log" >&2
  die "Redis did not start"
}

# The page is tested in a real browser: the system's own, which no test may download.
if [ -z "${PECULIAR_TEST_CHROMIUM:-}" ] && ! command -v chromium >/dev/null; then
  install chromium PECULIAR_TEST_CHROMIUM
fi
if ! command -v stilts >/dev/null; then install stilts; fi
if [ -z "${PECULIAR_TEST_POSTGRES:-}" ]; then start_postgres; fi
if [ -z "${PECULIAR_TEST_REDIS:-}" ]; then start_redis; fi
say "PostgreSQL: $PECULIAR_TEST_POSTGRES   Redis: $PECULIAR_TEST_REDIS"
export PECULIAR_TEST_SERVICES=required
"$@"
