"""Score unlearning entries.

`run` leads from entries to a leaderboard, `validate` checks an entry quickly, `reference` makes and checks packs
of reference models, and `cli` has the commands; what they take is in `arguments`, what a run is made of in
`settings`. Each room below says in its own docstring what it is for.
"""
