"""The heavy parts of a pre-training step: `plain.py` says what each computes, the other modules do it faster.

plain.extract     extractor.py   the convolutional extractor, without padding, in stretches
plain.positions   positions.py   the position embedding, by Fourier transform
plain.linear      linear.py      linear layers, by oneDNN where that is quicker
plain.attend      lebench_sb/encoders/attention.py, which encoders use as well
"""
