"""Text that several entries share: each block has its one source here and is copied into the entries by `sync`."""
