#!/bin/sh
# Brings a Debian 12 or 13 machine to the point where `atoll` can run: packages, Python environment,
# the package itself. Idempotent; a second run takes about a second and changes nothing.
#
#   scripts/bootstrap.sh run     what runs in production
#   scripts/bootstrap.sh dev     the same, and what tests and checks need
#
# The environment is /opt/atoll/venv ($ATOLL_VENV puts it elsewhere), made with Debian's own Python:
# control runs as a user without privileges, who could not enter a checkout or an interpreter below
# /root. Without root, `dev` makes .venv in the checkout and asks for nothing else: enough for
# `make check`.
set -eu

kind=${1:-run}
here=$(cd "$(dirname "$0")/.." && pwd)
log=$(mktemp -t atoll-bootstrap.XXXXXX)
policy=/usr/sbin/policy-rc.d
mark='# written by atoll scripts/bootstrap.sh'
trap 'rm -f "$log"; unhold_services' EXIT
trap 'exit 130' INT TERM

if [ "$(id -u)" -eq 0 ]; then
  default=/opt/atoll/venv
  venv=${ATOLL_VENV:-$default}
else
  venv=$here/.venv
  [ "$kind" = dev ] || { echo "atoll: this needs root. Try: sudo make up" >&2; exit 77; }
fi

# step TEXT COMMAND...: runs quietly, says what and how long; shows the output only if it fails.
step() {
  text=$1; shift
  printf '  %s ... ' "$text"
  began=$(date +%s)
  if "$@" > "$log" 2>&1; then
    echo "$(($(date +%s) - began)) s"
  else
    code=$?
    echo "failed ($code)"
    tail -n 40 "$log" >&2
    exit "$code"
  fi
}

# Packages of a list that apply to this architecture and are not installed.
lacking() {
  architecture=$(dpkg --print-architecture)
  sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@" | while read -r name only _; do
    case $only in "[$architecture]") ;; "["*"]") continue ;; esac
    state=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2> /dev/null || true)
    [ "$state" = installed ] || echo "$name"
  done
}

# Debian starts a daemon when its package is installed. Ours are started by us, with our
# configuration; policy-rc.d is the documented way to say so.
hold_services() {
  unhold_services
  [ -e "$policy" ] && return
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
  chmod 755 "$policy"
}

unhold_services() {
  if [ -f "$policy" ] && grep -qxF "$mark" "$policy"; then rm -f "$policy"; fi
}

install_packages() {
  missing=$(lacking "$@" | sort -u)
  [ -n "$missing" ] || return 0
  # shellcheck disable=SC2086
  set -- $missing
  hold_services
  export DEBIAN_FRONTEND=noninteractive
  step "package lists" apt-get update -q
  step "$# Debian packages: $(echo "$@" | cut -c 1-60)" \
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
  unhold_services
  # They would come up at the next boot otherwise, HAProxy on ports 80 and 443 of its example.
  for unit in caddy haproxy knot nginx postgresql ssh; do
    case " $* " in
      *" $unit "* | *" $unit-light "* | *" $unit-server "* | *" open$unit-server "*) disable_unit "$unit" ;;
    esac
  done
}

disable_unit() {
  if command -v systemctl > /dev/null; then systemctl disable -q "$1.service" 2> /dev/null || true; fi
}

# Holds what the environment was made from, so that nothing is done twice.
stamp_of() { cat "$@" | sha256sum | cut -d ' ' -f 1; }

make_environment() {
  lock=$1
  want=$(stamp_of "$lock" "$here/scripts/bootstrap.sh")
  [ "$(cat "$venv/$(basename "$lock").done" 2> /dev/null || true)" = "$want" ] && return
  python=/usr/bin/python3
  [ -x "$python" ] || python=python3
  if [ ! -x "$venv/bin/pip" ]; then
    mkdir -p "$(dirname "$venv")"
    step "Python environment in $venv" "$python" -m venv --clear "$venv"
  fi
  step "Python packages of $(basename "$lock")" \
    "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$lock"
  echo "$want" > "$venv/$(basename "$lock").done"
}

# What the web page takes from npm, for checks and tests; for users `atoll up` sees to it.
fetch_web_files() {
  want=$(stamp_of "$here"/src/atoll/host_setup/web_files/*.py)
  [ "$(cat "$venv/web-files.done" 2> /dev/null || true)" = "$want" ] &&
    [ -d "$venv/share/atoll/web" ] && return
  if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/atoll/npm
  else cache=${XDG_CACHE_HOME:-$HOME/.cache}/atoll/npm; fi
  step "files of the web page, from npm" \
    env PYTHONPATH="$here/src" "$venv/bin/python" -m atoll.host_setup.web_files "$cache"
  echo "$want" > "$venv/web-files.done"
}

# A built copy, not a link to the checkout: pulling must not change what runs.
install_atoll() {
  build=$(cd "$here" && find src pyproject.toml README.md -type f ! -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16)
  [ "$(cat "$venv/atoll.build" 2> /dev/null || true)" = "$build" ] && return
  rm -f "$venv/atoll.build"
  step "Atoll $build" "$venv/bin/pip" install -q --disable-pip-version-check --no-deps \
    --no-index --no-build-isolation --force-reinstall "$here"
  echo "$build" > "$venv/atoll.build"
  if [ "$venv" = "$default" ] && [ ! -e /usr/local/bin/atoll ]; then
    ln -s "$venv/bin/atoll" /usr/local/bin/atoll
  fi
}

case $kind in
  run)
    install_packages "$here/deploy/packages.txt"
    make_environment "$here/requirements.lock"
    install_atoll
    ;;
  dev)
    if [ "$(id -u)" -eq 0 ]; then
      install_packages "$here/deploy/packages.txt" "$here/deploy/packages-test.txt"
      make_environment "$here/requirements.lock"
    fi
    make_environment "$here/requirements-dev.lock"
    fetch_web_files
    ;;
  *) echo "usage: scripts/bootstrap.sh run|dev" >&2; exit 64 ;;
esac
