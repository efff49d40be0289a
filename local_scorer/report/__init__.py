"""From finished arrays to something to read: board, table, page and plots. Needs no torch."""
