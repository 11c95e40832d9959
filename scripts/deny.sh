#!/usr/bin/env bash
# Checks the dependencies against deny.toml with the cargo-deny that scripts/setup.sh built.
#
# Licences, bans and sources need Cargo.lock alone. Advisories need the database of RustSec, which is used if it is at
# hand and not fetched, so that this gives the same answer with and without a network.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/env.sh

deny=("$HEADWATER_DENY" --locked)
database="${CARGO_HOME:-$HOME/.cargo}/advisory-dbs"

"${deny[@]}" check licenses bans sources
if compgen -G "$database/*" >/dev/null; then
    "${deny[@]}" check --disable-fetch advisories
else
    echo "advisories: NOT CHECKED, no database in $database; '$HEADWATER_DENY fetch db' puts it there"
fi
