#!/usr/bin/env bash
# Builds RocksDB once, as one static archive that every cargo profile links, and prints its folder.
#
# Cargo's own build compiles 343 C++ files per profile and per target directory, most of whose time goes into reading
# the same headers. Here the same sources, those of the librocksdb-sys crate in Cargo.lock, are compiled as a handful of
# large files, which takes a fifth of the time, and the result stays in the user's cache.
#
# Exit code 1: no archive. Cargo then builds RocksDB itself; that works, but takes long.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/env.sh

# Contiguous parts of the source list that are compiled as one file each.
PARTS=8
# Peak memory of one compiler at this part size (1.5 GB seen with g++ 12), rounded up.
KIB_PER_JOB=2000000
CXX="${CXX:-c++}"

log() { echo "rocksdb: $*" >&2; }

fall_back() {
    log "$*"
    log "no prebuilt archive: cargo will compile RocksDB itself, about 20 minutes on two cores for each profile"
    exit 1
}

# The version of a crate in Cargo.lock.
locked_version() {
    sed -n "/^name = \"$1\"\$/{n;s/^version = \"\(.*\)\"\$/\1/p;}" Cargo.lock
}

# The folder of a crate's sources, as `cargo fetch` unpacked them.
crate_dir() {
    local dir
    for dir in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$1-$(locked_version "$1")"; do
        [ -d "$dir" ] && { echo "$dir"; return; }
    done
    return 1
}

# Flags for the processor's checksum instructions, without which RocksDB's CRC32C runs in software.
cpu_flags() {
    case "$(uname -m)" in
        x86_64)
            grep -qm1 -w sse4_2 /proc/cpuinfo && grep -qm1 -w pclmulqdq /proc/cpuinfo && echo "-msse4.2 -mpclmul"
            ;;
        aarch64)
            # RocksDB checks for these at run time as well.
            grep -qm1 -w crc32 /proc/cpuinfo && grep -qm1 -w pmull /proc/cpuinfo && echo "-march=armv8-a+crc+crypto"
            ;;
    esac || true
}

[ "$(uname -s)" = Linux ] || fall_back "the recipe is for Linux only, and this is $(uname -s)"
command -v "$CXX" >/dev/null || fall_back "no C++ compiler: '$CXX' is not on the PATH (CXX names another)"

version="$(locked_version librocksdb-sys)"
[ -n "$version" ] || fall_back "Cargo.lock names no librocksdb-sys"

# What the crate's build script sets for Linux and the features in Cargo.toml: lz4 and zstd, nothing else.
flags=(-std=c++20 -include cstdint -O2 -DNDEBUG -fPIC -ffunction-sections -fdata-sections -w
    -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
    -DROCKSDB_RANGESYNC_PRESENT -DLZ4=1 -DZSTD=1)
read -ra cpu <<<"$(cpu_flags)" || true
flags+=("${cpu[@]}")

# The compiler's own words, and the recipe: another compiler, processor or recipe is another archive.
compiler="$("$CXX" --version | head -1)"
id="$(printf '%s\n' "$compiler" "$PARTS" "${flags[@]}" | sha256sum | cut -c1-12)"
dir="$HEADWATER_CACHE/rocksdb-$version-$(uname -m)-$id"

publish() {
    ln -sfn "$dir" "$HEADWATER_CACHE/rocksdb-$version"
    echo "$dir"
    exit 0
}

[ -f "$dir/librocksdb.a" ] && publish

mkdir -p "$HEADWATER_CACHE"
exec 9>"$HEADWATER_CACHE/rocksdb.lock"
flock -n 9 || { log "another build is under way; waiting for it"; flock 9; }
[ -f "$dir/librocksdb.a" ] && publish

if ! rocksdb="$(crate_dir librocksdb-sys)"; then
    log "fetching the sources"
    cargo fetch --locked >&2 || fall_back "'cargo fetch --locked' failed"
    rocksdb="$(crate_dir librocksdb-sys)" || fall_back "cargo left no sources of librocksdb-sys $version in ~/.cargo/registry/src"
fi
lz4="$(crate_dir lz4-sys)" || fall_back "cargo left no sources of lz4-sys"
zstd="$(crate_dir zstd-sys)" || fall_back "cargo left no sources of zstd-sys"
flags+=(-I"$rocksdb/rocksdb" -I"$rocksdb/rocksdb/include" -I"$rocksdb" -I"$lz4/liblz4/lib" -I"$zstd/zstd/lib")

jobs="${HEADWATER_JOBS:-$(nproc)}"
room="$(awk -v each="$KIB_PER_JOB" '$1 == "MemAvailable:" { print int($2 / each) }' /proc/meminfo)"
[ -n "$room" ] && [ "$room" -lt "$jobs" ] && jobs="$room"
[ "$jobs" -ge 1 ] || jobs=1

work="$(mktemp -d "$HEADWATER_CACHE/rocksdb-build.XXXXXX")"
trap 'rm -rf "$work"' EXIT

sources=()
while read -r file; do
    # The crate has its own, filled in, and it is compiled apart.
    [ "$file" = util/build_version.cc ] || sources+=("$file")
done < <(grep -v '^[[:space:]]*$' "$rocksdb/rocksdb_lib_sources.txt" | tr -d '\r')
[ "${#sources[@]}" -gt 0 ] || fall_back "the source list of librocksdb-sys $version is empty"

for ((part = 0; part < PARTS; part++)); do
    from=$((${#sources[@]} * part / PARTS))
    to=$((${#sources[@]} * (part + 1) / PARTS))
    printf '#include "%s"\n' "${sources[@]:from:to-from}" >"$work/part-$part.cc"
done
cp "$rocksdb/build_version.cc" "$work/"

log "compiling RocksDB ($version) with $compiler, $jobs at a time: about 4 minutes on two cores"
started=$SECONDS
printf '%s\0' "$work"/*.cc |
    xargs -0 -P "$jobs" -I{} sh -c '"$@" -c "{}" -o "{}.o"' sh "$CXX" "${flags[@]}" >&2 ||
    fall_back "the compiler failed, see above"

mkdir "$work/out"
ar crs "$work/out/librocksdb.a" "$work"/*.o || fall_back "ar failed"
# One rename, so that whoever sees the folder sees the whole archive.
mv -T "$work/out" "$dir"
log "done in $((SECONDS - started)) s: $dir"
publish
