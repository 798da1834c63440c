"""Tasks, one file each: the Brain and the data of all recipes of the task."""
