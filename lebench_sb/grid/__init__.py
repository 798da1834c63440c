"""`lebench benchmark GRID.yaml`: encoders x tasks x modes x seeds, each an ordinary recipe command.

`grid` reads and checks the YAML, `plan` makes steps of it, `fingerprint` says what a step depends on,
`execute` runs one step in its folder, `schedule` runs all of them here or on SLURM, `report` makes the
tables.
"""
