"""Random inputs of tiny models, and how transformers takes them."""
import numpy as np
import torch


def draw_source(config, rng, length):
    """Token ids, or for a speech model frames [bins][frames] of its one length."""
    if config.model_type != "whisper":
        return [int(t) for t in rng.integers(3, config.vocab_size, length)]
    # As log-mel spectra are: between about -1 and 1. Three decimals, so that the file stays small.
    frames = rng.uniform(-1, 1, (config.num_mel_bins, 2 * config.max_source_positions))
    return np.round(frames, 3).tolist()


def key_of(source):
    return "input_features" if isinstance(source[0], list) else "input_ids"


def inputs_of(source):
    return {key_of(source): torch.tensor([source])}
