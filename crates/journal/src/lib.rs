//! An append-only, checksummed, synced record file.
