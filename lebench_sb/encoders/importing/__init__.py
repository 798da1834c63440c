"""`lebench import`: checkpoints of other toolkits -> Hugging Face folders."""
