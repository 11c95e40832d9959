#!/usr/bin/env bash
# Makes this machine able to build the workspace; does nothing, quickly, where that is already so.
#
#   scripts/setup.sh build    what `make demo` needs: Rust, a C++ compiler, libclang, OpenSSL's headers, RocksDB
#   scripts/setup.sh test     that, and what the tests on a real Kafka need: a JDK and Kafka's jars
#   scripts/setup.sh lint     that of `build`, and cargo-deny
#
# Missing system packages are installed where that can be done without asking (Debian and its kin, as root or with
# passwordless sudo). Otherwise the command to run is printed and the exit code is 1.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/env.sh

# The oldest Java that Kafka's broker runs on.
JAVA_MIN=17

log() { echo "setup: $*" >&2; }
die() { log "$*"; exit 1; }

purpose="${1:-build}"
case "$purpose" in
    build | test | lint) ;;
    *) die "'$purpose' is no purpose; use build, test or lint" ;;
esac

# --- Rust

check_rust() {
    local needed found
    needed="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)"
    if ! command -v cargo >/dev/null; then
        [ -x "$HOME/.cargo/bin/cargo" ] && die "cargo is in ~/.cargo/bin, which is not on the PATH. Run:
    . \"\$HOME/.cargo/env\""
        die "Rust $needed or later is needed, and there is no cargo on the PATH. Run:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    fi
    found="$(rustc --version | cut -d' ' -f2)"
    [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -1)" = "$needed" ] ||
        die "Rust $needed or later is needed, and this is $found. Run:
    rustup update stable"
}

# --- System packages

# libclang itself: libclang-cpp, of which bindgen has no use, is often there alone.
have_libclang() {
    local dir
    [ -n "${LIBCLANG_PATH:-}" ] && return
    for dir in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        compgen -G "$dir/libclang.so*" >/dev/null || compgen -G "$dir/libclang-[0-9]*.so*" >/dev/null && return
    done
    return 1
}

# The major version of the `java` on the PATH, 0 where there is none.
java_major() {
    local line
    line="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)" || true
    echo "${line:-0}"
}

have_jars() { compgen -G "$HEADWATER_KAFKA_LIBS/kafka_*.jar" >/dev/null; }

missing_packages() {
    local missing=()
    command -v make >/dev/null || missing+=(make)
    { command -v c++ && command -v cc; } >/dev/null || missing+=(g++)
    command -v clang >/dev/null || missing+=(clang)
    have_libclang || missing+=(libclang-dev)
    if ! command -v pkg-config >/dev/null; then
        missing+=(pkg-config libssl-dev)
    elif ! pkg-config --exists openssl; then
        missing+=(libssl-dev)
    fi
    # A broker that runs already needs no Java here.
    if [ "$purpose" = test ] && [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ]; then
        [ "$(java_major)" -ge "$JAVA_MIN" ] || missing+=(default-jdk-headless)
        have_jars || command -v mvn >/dev/null || missing+=(maven)
    fi
    echo "${missing[*]}"
}

install_packages() {
    local packages="$1" sudo=()
    # A source of packages that cannot be reached need not be one of those that are used.
    local command="apt-get update; apt-get install --yes --no-install-recommends $packages"
    command -v apt-get >/dev/null || die "these are missing, by the names of Debian's packages; install what holds them here: $packages"
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            die "packages are missing, and installing them needs a password. Run:
    sudo sh -c '$command'"
        fi
        sudo=(sudo -n)
    fi
    log "installing $packages"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive sh -c "$command" >&2 || die "the installation failed. Run it by hand:
    $command"
}

check_system() {
    local missing
    missing="$(missing_packages)"
    [ -z "$missing" ] && return
    install_packages "$missing"
    missing="$(missing_packages)"
    case " $missing " in
        "  ") ;;
        *" default-jdk-headless "*)
            die "Java $JAVA_MIN or later is needed, and the 'java' on the PATH is $(java_major); put a newer one first on the PATH"
            ;;
        *) die "still missing after the installation: $missing" ;;
    esac
}

# --- cargo-deny

# Kept by its version, apart from ~/.cargo/bin, so that it neither replaces another nor is replaced.
install_deny() {
    local version="$HEADWATER_DENY_VERSION"
    local root="$HEADWATER_CACHE/tools/cargo-deny-$version" work
    [ -x "$HEADWATER_DENY" ] && return
    log "building cargo-deny $version, once: several minutes"
    mkdir -p "$HEADWATER_CACHE/tools"
    work="$(mktemp -d "$HEADWATER_CACHE/tools/build.XXXXXX")"
    # It runs for seconds, so it is compiled for a short build; and its own target directory is thrown away.
    CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_TARGET_DIR="$work/target" \
        cargo install cargo-deny --locked --version "$version" --debug --quiet --root "$work/root" >&2 ||
        { rm -rf "$work"; die "cargo-deny $version could not be built, see above"; }
    mv -T "$work/root" "$root" 2>/dev/null || [ -x "$root/bin/cargo-deny" ]
    rm -rf "$work"
}

check_rust
check_system
# A failure is told by the script; cargo then compiles RocksDB itself.
[ -n "${ROCKSDB_LIB_DIR:-}" ] || scripts/rocksdb.sh >/dev/null || true
case "$purpose" in
    test) [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] || scripts/kafka.sh >/dev/null ;;
    lint) install_deny ;;
esac
