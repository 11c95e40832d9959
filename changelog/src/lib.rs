//! Under construction in the first commits: see `ARCHITECTURE.md`.
