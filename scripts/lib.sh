# shellcheck shell=bash
# What the scripts in this folder share. Sourced, never run.
#
# Two rules hold for every script: what it needs it installs itself, from Debian's packages, rustup, PyPI or npm with
# pinned versions; and everything it downloads or builds lies below target/, so `rm -r target` undoes all of it but
# the Debian packages.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=$ROOT/target

say() { printf '%s\n' "${0##*/}: $*" >&2; }

die() {
    printf '%s\n' "${0##*/}: error: $*" >&2
    exit 1
}

# help: prints the calling script's own header comment, so that a script is documented in one place.
help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# need_apt PACKAGE...: installs those Debian packages that are missing.
need_apt() {
    local package state missing=() sudo=()
    if ! command -v dpkg-query >/dev/null; then
        # Some other distribution: the commands may be there under other package names, so go on and see.
        say "not a Debian system: make sure of what these packages bring: $*"
        return
    fi
    for package in "$@"; do
        state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [[ $state == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            die "missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get -qq update >&2 || say "apt-get update failed; trying with the lists there are"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "could not install: ${missing[*]}"
}

# need_rust: makes sure of cargo, also where a login shell has not been started since rustup was installed.
need_rust() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null ||
        die "cargo is missing: install Rust with rustup (Debian: apt-get install rustup && rustup default stable)"
}

# need_target TRIPLE: makes sure of the standard library for that target.
need_target() {
    need_rust
    [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]] && return
    command -v rustup >/dev/null || die "this Rust has no standard library for $1, and there is no rustup to add it"
    say "adding the Rust target $1"
    rustup target add "$1" >&2 || die "rustup could not add the target $1"
}

# venv [FOLDER [REQUIREMENTS]]: a Python environment with exactly the pinned packages, made again when the pins
# change. Default: target/venv with the peers that the tests talk to.
venv() {
    local folder=${1:-$TARGET/venv} requirements=${2:-$ROOT/tests/peers/requirements.txt} hash
    hash=$(sha256sum <"$requirements")
    [[ -x $folder/bin/python && $(cat "$folder/requirements.sha256" 2>/dev/null) == "$hash" ]] && return
    command -v python3 >/dev/null || need_apt python3
    # Debian splits ensurepip off; without it `-m venv` fails half way.
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_apt python3-venv
    say "making ${folder#"$ROOT"/} from ${requirements#"$ROOT"/}"
    rm -rf "$folder"
    mkdir -p "${folder%/*}"
    python3 -m venv "$folder"
    "$folder/bin/pip" --quiet --disable-pip-version-check --cache-dir "$TARGET/pip-cache" \
        install --requirement "$requirements" >&2 || die "pip could not install ${requirements#"$ROOT"/}"
    printf '%s\n' "$hash" >"$folder/requirements.sha256"
}

# node_peers: node-opcua at target/node/node_modules with exactly the pinned packages, made again when the pins change.
node_peers() {
    local folder=$TARGET/node pins=$ROOT/tests/peers/node
    # Whoever has Node from elsewhere keeps it; Debian's npm would not go with it.
    command -v npm >/dev/null || need_apt nodejs npm
    cmp -s "$pins/package-lock.json" "$folder/package-lock.json" && [[ -f $folder/complete ]] && return
    say "making target/node from tests/peers/node/package-lock.json"
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$pins/package.json" "$pins/package-lock.json" "$folder"
    # None of these packages needs the scripts that packages may run while they are installed.
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
        die "npm could not install tests/peers/node/package-lock.json"
    touch "$folder/complete"
}

# foreign_apt FOLDER COMMAND...: apt of the host's Debian for arm64, with a state of its own in FOLDER: the host's package
# lists, cache and architectures stay as they are. PACKAGE:amd64 (or what this host is) gives what runs here.
foreign_apt() {
    local folder=$1 command=$2
    shift 2
    mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
    [[ -e $folder/status ]] || : >"$folder/status"
    "$command" -o Dir::State="$folder/state" -o Dir::State::status="$folder/status" -o Dir::Cache="$folder/cache" \
        -o APT::Architecture=arm64 -o APT::Architectures="arm64,$(dpkg --print-architecture)" \
        -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true "$@"
}

# foreign_libraries PACKAGES FILE FOLDER: copies what FILE loads at run time, and what that loads, out of the unpacked
# PACKAGES into FOLDER.
foreign_libraries() {
    local name found
    # The loader stands in the program header as a path, everything else by name.
    for name in $(readelf --dynamic "$2" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p') ld-linux-aarch64.so.1; do
        [[ -e $3/$name ]] && continue
        found=$(find "$1" -name "$name" -print -quit)
        [[ $found ]] || die "no fetched package brings $name, which ${2##*/} needs"
        cp --dereference "$found" "$3/$name"
        foreign_libraries "$1" "$3/$name" "$3"
    done
}

# arm64_kernel FOLDER: the package of Debian's newest arm64 kernel, by foreign_apt's lists in FOLDER. The kernel hangs on a
# meta package; its own dependencies (initramfs tools) are not wanted here.
arm64_kernel() {
    local kernel
    kernel=$(foreign_apt "$1" apt-cache show --no-all-versions linux-image-arm64 2>/dev/null |
        sed -n 's/^Depends: *\(linux-image-[^ ,]*\).*/\1/p')
    [[ $kernel ]] || die "these package sources offer no linux-image-arm64: this needs Debian's (Ubuntu's have none)"
    printf '%s\n' "$kernel"
}

# pack FOLDER COMPRESSOR...: an archive for the kernel's initramfs, on stdout.
pack() { (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --quiet --create --format=newc --owner=0:0 | "${@:2}"); }
