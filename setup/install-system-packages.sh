#!/usr/bin/env bash
# Installs the programs of Debian or Ubuntu that the demo and the tests run, and only those that are missing.
#
#   setup/install-system-packages.sh
#
# Needs root or sudo without a password; without them it prints what to install and goes on, because the node itself
# and most tests do without. Ends with an error only when an installation that was begun fails.
set -euo pipefail

log=${SETUP_LOG:-.cache/setup.log}
policy=/usr/sbin/policy-rc.d
packages=(
    python3 python3-venv                                # the node's own environment
    orthanc orthanc-python orthanc-dicomweb orthanc-gdcm # the PACS of the demo and the tests
    dcmtk dicom3tools libgdcm-tools                     # senders, receivers and validators that are not ours
    chromium fonts-dejavu-core                          # the browser of the viewer's and the dashboard's tests
    fonts-droid-fallback fonts-nanum                    # Chinese, Japanese and Korean names on the summary page
    poppler-utils                                       # reads the summary's PDF back in the tests
    strace e2fsprogs                                    # the fault campaign: failing system calls, a disk of its own
)

# What a machine without the package does without.
cost_of() {
    case $1 in
        chromium) echo "no browser tests; Ubuntu offers it as a snap only, and a Chromium of your own on the path will do" ;;
        orthanc | orthanc-*) echo "no demo, and no tests with a real Orthanc" ;;
        dcmtk | dicom3tools) echo "no demo, and no tests with these senders and validators" ;;
        libgdcm-tools) echo "no tests with GDCM" ;;
        *) echo "see docs/install.md" ;;
    esac
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v apt-get >/dev/null; then
    echo "setup: no apt-get here; install yourself what your system calls: ${packages[*]}"
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "setup: system packages are there"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "setup: cannot install system packages without root. Going on with what there is; later run:"
        echo "           sudo apt-get install --no-install-recommends ${missing[*]}"
        exit 0
    fi
    as_root=(sudo -n)
fi

mkdir -p "$(dirname "$log")"
: >>"$log"

fail() {
    echo "setup: $1; the end of $log says:" >&2
    tail -n 15 "$log" >&2
    exit 1
}

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >>"$log" 2>&1
}

# Debian starts a service as soon as its package is there. The distribution's Orthanc would then listen on every
# address with a public password, although we only want its program.
held_back=no
release_services() {
    if [ "$held_back" = yes ]; then
        "${as_root[@]}" rm -f "$policy"
        held_back=no
    fi
}
trap release_services EXIT

new_orthanc=no
case " ${missing[*]} " in *" orthanc "*) new_orthanc=yes ;; esac
if [ "$new_orthanc" = yes ] && [ ! -e "$policy" ]; then
    held_back=yes
    printf '#!/bin/sh\n[ "$1" = orthanc ] && exit 101\nexit 0\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

apt update || fail "apt-get update failed"
offered=()
for package in "${missing[@]}"; do
    candidate=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: *//p')
    if [ -n "$candidate" ] && [ "$candidate" != "(none)" ]; then
        offered+=("$package")
    else
        echo "setup: this system offers no package $package: $(cost_of "$package")"
    fi
done
missing=("${offered[@]}")
case " ${missing[*]} " in *" orthanc "*) ;; *) new_orthanc=no ;; esac
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
echo "setup: installing ${missing[*]} (about a minute; details in $log)"
apt install -y --no-install-recommends "${missing[@]}" || fail "apt-get install failed"
release_services

if [ "$new_orthanc" = yes ]; then
    # Not at the next start of the machine either.
    if command -v systemctl >/dev/null; then
        "${as_root[@]}" systemctl disable orthanc >>"$log" 2>&1 || fail "disabling the orthanc service failed"
    else
        "${as_root[@]}" update-rc.d orthanc disable >>"$log" 2>&1 || fail "disabling the orthanc service failed"
    fi
    echo "setup: the distribution's own Orthanc service is switched off; only its program is used here"
fi
