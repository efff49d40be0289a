"""One module per source of pictures; each has `prepare`, and the command line that calls it.

`faces` and `portrait` belong to `synthetic`: they draw people, and paint them.
"""
