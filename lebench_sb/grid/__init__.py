"""`lebench benchmark GRID.yaml`: encoders x tasks x modes x seeds, each an ordinary recipe command.

`schema` says what may be written in the YAML, `checks` what must be there, `grid` reads it; `plan` makes
steps of it, `execute` runs one step in its folder, `schedule` runs all of them here or on SLURM, `report`
makes the tables.
"""
