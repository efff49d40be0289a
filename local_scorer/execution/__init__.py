"""Where entry code and torch run.

`contract` is what an entry must have; `submission` and `checkpoint` read models made elsewhere. A `job` is a
description in JSON, `steps` are what it does, and `command` does the whole of it on any machine; `sandbox` and
`keeper` keep the entry apart. `pool` does a list of jobs on an engine: `local` or `ray`.
"""
