#!/usr/bin/env bash
# Makes .venv with everything of pyproject.toml, training and development tools included.
#
#   setup/make-environment.sh
#
# Finds a Python of 3.11 or newer by itself; PYTHON=/path/to/python chooses another one.
set -euo pipefail

cd "$(dirname "$0")/.."
log=${SETUP_LOG:-.cache/setup.log}
venv=.venv

usable() {
    "$1" -c 'import ensurepip, sys, venv; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 /usr/bin/python3 python3.12 python3.13}; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "setup: no Python of 3.11 or newer with the venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2
    return 1
}

# pip's many lines become one that moves on a terminal, and go to the log in any case.
show_progress() {
    local line
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        if [ -t 1 ]; then
            case $line in
                Collecting*|*Downloading*|Installing*|Building*) printf '\r\033[K    %.70s' "$line" ;;
            esac
        fi
    done
    if [ -t 1 ]; then printf '\r\033[K'; fi
}

pip() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 | show_progress
}

fail() {
    echo "setup: $1; the end of $log says:" >&2
    tail -n 15 "$log" >&2
    exit 1
}

mkdir -p "$(dirname "$log")"
python=$(find_python)
if ! { [ -x "$venv/bin/python" ] && usable "$venv/bin/python"; }; then
    echo "setup: making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" >>"$log" 2>&1 || fail "making $venv failed"
fi
echo "setup: installing Python packages into $venv (one to some minutes; details in $log)"
# Debian 12's pip knows no dependency groups.
pip 'pip>=25.1' || fail "updating pip failed"
pip --group dev --editable ".[train,tables]" || fail "installing packages failed"
echo "setup: done, $("$venv/bin/python" --version) with $("$venv/bin/python" -m pip list 2>/dev/null | tail -n +3 | wc -l) packages"
