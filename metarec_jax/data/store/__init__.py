"""Row stores: data sets on disk, sorted by user and memory-mapped, for more rows than memory holds."""
