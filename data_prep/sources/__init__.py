"""One module per source of pictures; each has `prepare`, and the command line that calls it."""
