"""What every part stands on: errors in one line, whole files, guards at the doors."""
