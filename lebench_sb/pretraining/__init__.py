"""wav2vec 2.0 pre-training: masks, losses, the model step and the Brain around it."""
