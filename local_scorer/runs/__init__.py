"""What is on disk. Needs no torch.

`store` is the run folder: finished jobs under content keys. `record` opens a stored run and reads each array
once; all that reports asks it. `pack` keeps reference models in one file. `schema` and `arrays` read JSON and
arrays that others may have written.
"""
