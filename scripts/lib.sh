# What scripts/demo, scripts/test and scripts/bench share: installing what is missing. POSIX sh; to be sourced.
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
    want cc gcc
    [ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
}

# The Rust version that the repository is built with.
rust_version() { sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml; }

# Whether version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Rust: the cargo that is there; else rustup, from the distribution or from rust-lang.org. rustup
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
    if has apt-cache && apt-cache policy rustup | grep -q 'Candidate: [0-9]'; then
        install_packages rustup
    else
        install_rustup
    fi
    export PATH
    say "getting Rust $wanted"
    rustup toolchain install "$wanted" --profile minimal --component clippy --component rustfmt
}

# The installer of rust-lang.org, checked against the checksum that lies beside it.
install_rustup() {
    want curl "curl ca-certificates"
    install_missing
    case "$(uname -m)" in
        x86_64 | aarch64) host="$(uname -m)-unknown-linux-gnu" ;;
        *) die "please install Rust $wanted first (https://rustup.rs), this machine is a $(uname -m)" ;;
    esac
    say "installing rustup from https://static.rust-lang.org into ${CARGO_HOME:-$HOME/.cargo}"
    installer=$(mktemp -d)
    from=https://static.rust-lang.org/rustup/dist/$host/rustup-init
    init=$installer/rustup-init
    curl --proto '=https' --tlsv1.2 -sSf -o "$init" "$from" -o "$init.sha256" "$from.sha256" ||
        die "rustup cannot be downloaded"
    [ "$(sha256sum <"$init" | cut -c 1-64)" = "$(cut -c 1-64 "$init.sha256")" ] ||
        die "the rustup that was downloaded is not the one that was published"
    chmod +x "$init"
    "$init" -q -y --no-modify-path --profile minimal --default-toolchain none >/dev/null
    rm -rf "$installer"
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
}

# Python modules, in the versions of python-modules.txt: those that are there, if python3 can run
# the import that is given; else in a folder of their own, whose python3 comes first from then on.
need_python_modules() {
    python3 -c "$1" 2>/dev/null && return
    python=${CAPSTAN_PYTHON:-$HOME/.cache/capstan-python}
    if ! "$python/bin/python3" -c "$1" 2>/dev/null; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        say "installing Python modules into $python"
        python3 -m venv "$python" || return
        "$python/bin/python3" -m pip install --quiet --disable-pip-version-check \
            --requirement scripts/python-modules.txt || return
    fi
    PATH="$python/bin:$PATH"
    export PATH
}

# Where cargo builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}"; }
