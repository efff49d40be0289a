"""From finished arrays to something to read. Needs no torch.

`board` scores every entry of a stored run, in `rows` and by their `times`; `table` is its text. `page` writes one
HTML file from `templates/`, with `sections`, `columns` and `formats` for its values and `plots` and `svg` for its
figures. `notebook` draws the figures of a notebook.
"""
