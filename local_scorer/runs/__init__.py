"""What is on disk: the run folder, its finished jobs and the record of a run. Needs no torch."""
