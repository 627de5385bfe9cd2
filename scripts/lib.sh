# What scripts/demo and scripts/test share: installing what is missing. POSIX sh; to be sourced.
# shellcheck shell=sh

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() { warn "$(basename "$0"): $*"; exit 1; }

has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: as it is, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "root rights are needed for: $* (and there is no sudo here)"
    fi
}

# Installs Debian packages: install_packages PACKAGE...
install_packages() {
    has apt-get || die "please install these first, this is no Debian or Ubuntu: $*"
    if [ "$(id -u)" -eq 0 ]; then
        say "installing with apt-get: $*"
    else
        say "installing with sudo apt-get: $*"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install \
        --no-install-recommends "$@" >/dev/null 2>&1 && return
    # The package lists may be old, or not there yet.
    as_root apt-get -qq -y update >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install \
        --no-install-recommends "$@" >/dev/null
}

# Puts the package of each missing command into $missing: want COMMAND PACKAGE
missing=""
want() { has "$1" || missing="$missing $2"; }

# Installs what `want` found to be missing.
install_missing() {
    # shellcheck disable=SC2086 # A list of words.
    [ -z "$missing" ] || install_packages $missing
    missing=""
}

# A C compiler: zstd and ring are built from C and assembly.
want_c_compiler() {
    want cc "gcc libc6-dev"
    [ -e /usr/include/stdlib.h ] || has clang || missing="$missing libc6-dev"
}

# The Rust version that the repository is built with.
rust_version() { sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml; }

# Whether version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Rust: the cargo that is there; else rustup, from the distribution or from rustup.rs. rustup
# reads rust-toolchain.toml and fetches that version by itself.
need_rust() {
    wanted=$(rust_version)
    has cargo || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if has cargo; then
        has rustup && return
        found=$(cargo --version | cut -d ' ' -f 2)
        at_least "$found" "$wanted" && return
        say "cargo $found is too old, Capstan is built with Rust $wanted: getting rustup beside it"
    fi
    if has apt-get && apt-cache show rustup >/dev/null 2>&1; then
        install_packages rustup
    else
        want curl "curl ca-certificates"
        install_missing
        say "installing rustup from https://rustup.rs into ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -q -y --no-modify-path --profile minimal --default-toolchain none
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    export PATH
    say "getting Rust $wanted"
    rustup toolchain install "$wanted" --profile minimal --component clippy --component rustfmt \
        >/dev/null
}

# Where cargo builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}"; }
