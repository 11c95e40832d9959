# Sourced from the repository's root by the Makefile's recipes and by the other scripts; a shell may do so too:
#     . scripts/env.sh && cargo test -p headwater-changelog
# It exports where things are kept; a variable that is already set wins.
#
#   HEADWATER_CACHE       downloads and builds that outlive a clone, by default ~/.cache/headwater
#   CARGO_TARGET_DIR      cargo's output; outside the clone, so that a second clone compiles only the workspace
#   ROCKSDB_LIB_DIR, ROCKSDB_STATIC
#                         the prebuilt RocksDB archive; left unset while there is none, and cargo then compiles RocksDB
#   HEADWATER_KAFKA_LIBS  the folder of Kafka's jars, which the integration tests start as a broker
#   HEADWATER_DENY        the cargo-deny of `make lint`
#
# Runs in bash and in dash: `make` hands recipes to /bin/sh.

HEADWATER_KAFKA_VERSION=4.4.0
HEADWATER_DENY_VERSION=0.20.2

export HEADWATER_CACHE="${HEADWATER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headwater}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HEADWATER_CACHE/target}"
export HEADWATER_KAFKA_LIBS="${HEADWATER_KAFKA_LIBS:-$HEADWATER_CACHE/kafka-$HEADWATER_KAFKA_VERSION/libs}"
export HEADWATER_DENY="${HEADWATER_DENY:-$HEADWATER_CACHE/tools/cargo-deny-$HEADWATER_DENY_VERSION/bin/cargo-deny}"

# scripts/rocksdb.sh sets this link, one for each version in a Cargo.lock, to the archive it built last. The bindings and
# the archive must be of one version, or the program reads its own structures wrong. Cargo gets the link's target, since
# a changed path is what makes it link anew.
if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
    headwater_link="$HEADWATER_CACHE/rocksdb-$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)"
    if [ -f "$headwater_link/librocksdb.a" ]; then
        ROCKSDB_LIB_DIR="$(cd -P "$headwater_link" && pwd -P)"
        ROCKSDB_STATIC=1
        export ROCKSDB_LIB_DIR ROCKSDB_STATIC
    fi
    unset headwater_link
fi
