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
    # Another script may be at it.
    "${sudo[@]}" flock /tmp/vedette-apt.lock apt-get -qq update >&2 || say "apt-get update failed; trying with the lists there are"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}" >&2 ||
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

# Debian has Wine's parts here, and its PE files of the other bitness nowhere that a 64-bit system could install them from.
WINE=/usr/lib/wine

# wine_env [NAME]: a Windows of that name below target/wine, without a screen, in which programs of 64 and of 32 bits run; made
# if it is not there. Leaves the environment that "$WINE/wine64 PROGRAM" wants.
wine_env() {
    local name=${1:-prefix} version
    need_apt wine64 libwine
    # Counts up when what is made here changes, so that old ones are made anew.
    version="$(dpkg-query -W -f='${Version}' libwine) 2"
    export WINEDLLPATH=$TARGET/wine/i386 WINEDEBUG=${WINEDEBUG--all} DISPLAY=
    # It would ask whether to download them.
    export WINEDLLOVERRIDES='mscoree,mshtml='
    export WINEPREFIX=$TARGET/wine/prefix
    [[ $(cat "$WINEPREFIX/complete" 2>/dev/null) == "$version" ]] || wine_prefix "$version"
    [[ $name != prefix ]] || return 0
    export WINEPREFIX=$TARGET/wine/$name
    [[ $(cat "$WINEPREFIX/complete" 2>/dev/null) == "$version" ]] && return
    rm -rf "$WINEPREFIX"
    cp -a "$TARGET/wine/prefix" "$WINEPREFIX"
}

# wine_prefix VERSION: makes $WINEPREFIX.
wine_prefix() {
    wine_i386 "$1"
    say "making ${WINEPREFIX#"$ROOT"/}"
    rm -rf "$WINEPREFIX"
    mkdir -p "$WINEPREFIX"
    local second running='' folder from file
    timeout 300 "$WINE/wine64" wineboot -i >/dev/null 2>&1 || die "wineboot failed"
    # Services start by and by, on a busy machine late or, at the first time, not at all; COM cannot do without this one.
    for ((second = 0; second < 120; second++)); do
        running=$(timeout 60 "$WINE/wine64" net start 2>/dev/null || true)
        [[ $running == *RPC* ]] && break
        ((second % 30 < 29)) || timeout 60 "$WINE/wine64" net start RpcSs >/dev/null 2>&1 || true
        sleep 1
    done
    [[ $running == *RPC* ]] || die "Wine's RPC service did not start"
    # Wine copies its own files, a gigabyte.
    for folder in system32:/usr/lib/x86_64-linux-gnu/wine/x86_64-windows "syswow64:$WINEDLLPATH/i386-windows"; do
        from=${folder#*:}
        for file in "$WINEPREFIX/drive_c/windows/${folder%%:*}"/*; do
            cmp -s "$from/${file##*/}" "$file" && ln -sf "$from/${file##*/}" "$file"
        done
    done
    # What is in its registry is to be on disk.
    "$WINE/wineserver" -k || true
    printf '%s\n' "$1" >"$WINEPREFIX/complete"
}

# wine_i386 VERSION: the 32-bit PE files of that libwine at target/wine/i386, which is all that a 64-bit Wine lacks to run 32-bit
# programs. The package is only unpacked, by an apt that has a state of its own: the machine gets no foreign architecture.
# Wine looks for the Unix part of a DLL beside the folder of its PE file, and without it ws2_32.dll does not start.
wine_i386() {
    local folder=$TARGET/wine/i386 apt=$TARGET/wine/apt
    [[ $(cat "$folder/complete" 2>/dev/null) == "$1" ]] && return
    say "getting Wine's 32-bit files"
    rm -rf "$folder" "$apt"
    mkdir -p "$folder" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    local options=(-qq -o "Dir::State=$apt/state" -o "Dir::Cache=$apt/cache" -o Dir::State::status=/var/lib/dpkg/status
        -o APT::Architectures::=amd64 -o APT::Architectures::=i386 -o APT::Sandbox::User=)
    apt-get "${options[@]}" update >&2 || say "apt-get update failed; trying with the lists there are"
    (cd "$apt" && apt-get "${options[@]}" download "libwine:i386=${1% *}") >&2 || die "cannot download libwine:i386 ${1% *}"
    dpkg-deb --fsys-tarfile "$apt"/libwine_*_i386.deb |
        tar -x -C "$folder" --strip-components=5 ./usr/lib/i386-linux-gnu/wine/i386-windows ||
        die "cannot unpack libwine:i386"
    ln -s /usr/lib/x86_64-linux-gnu/wine/x86_64-unix "$folder/x86_64-unix"
    rm -rf "$apt"
    printf '%s\n' "$1" >"$folder/complete"
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
