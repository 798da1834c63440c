"""Which frames or samples of a padded batch are an utterance's own."""

import torch


def valid_mask(lens, size, device=None):
    """lens (B,) -> bool (B, size), True below the length; on `device`, that of lens where None"""
    lens = lens if device is None else lens.to(device)
    return torch.arange(size, device=lens.device) < lens[:, None]
