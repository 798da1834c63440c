"""What recipes share: the run folder, the loop, batches, checkpoints, energy."""
