"""Records the inverse frequencies of transformers for every scaling rule, as fp32 bits.

  python make_rope_goldens.py > rope_goldens.json

The frequencies are read from LlamaRotaryEmbedding after a forward pass over a prompt of the given length: rules that
depend on length (dynamic, longrope) choose there. Needs torch and transformers (recorded with 2.15 and 5.23).
"""

import json
import sys

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

FACTORS = [1.0, 1.05, 1.1, 1.3, 1.6, 2.1, 3.0, 4.5]
LONG_FACTORS = [1.0, 1.4, 2.2, 4.0, 8.5, 16.0, 31.0, 48.0]
# head size, max_position_embeddings, rope_parameters, prompt lengths
CASES = [
    (64, 2048, {"rope_type": "default", "rope_theta": 10000.0}, [1, 5000]),
    (128, 8192, {"rope_type": "default", "rope_theta": 500000.0}, [10]),
    (80, 4096, {"rope_type": "default", "rope_theta": 1000000.0}, [10]),
    (12, 64, {"rope_type": "default", "rope_theta": 123.456}, [10]),
    (256, 4096, {"rope_type": "default", "rope_theta": 5000000.0}, [10]),
    (64, 2048, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, [1]),
    (16, 128, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.7}, [1]),
    (64, 2048, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, [1, 2048, 2049, 4096]),
    (16, 20, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}, [1, 20, 21, 60, 77]),
    (32, 50, {"rope_type": "dynamic", "rope_theta": 1000000.0, "factor": 2.3}, [50, 51, 133]),
    (128, 131072, {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, [1]),
    (64, 131072, {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                  "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, [1]),
    (16, 128, {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 0.5,
               "high_freq_factor": 3.0, "original_max_position_embeddings": 24}, [1]),
    (128, 131072, {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
                   "original_max_position_embeddings": 32768}, [1]),
    (64, 163840, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.8,
                  "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}, [1]),
    (64, 131072, {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                  "truncate": False, "original_max_position_embeddings": 4096}, [1]),
    (16, 128, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "beta_fast": 8, "beta_slow": 0.5,
               "attention_factor": 1.25, "original_max_position_embeddings": 32}, [1]),
    (16, 128, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": None, "beta_fast": 4.0, "beta_slow": 4.0,
               "mscale": 0.7, "original_max_position_embeddings": 32}, [1]),
    (16, 160, {"rope_type": "longrope", "rope_theta": 10000.0, "factor": None, "short_factor": FACTORS,
               "long_factor": LONG_FACTORS, "original_max_position_embeddings": 40}, [1, 40, 41, 100]),
    (16, 128, {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "attention_factor": 1.1,
               "short_factor": FACTORS, "long_factor": LONG_FACTORS, "original_max_position_embeddings": 32}, [32, 33]),
    (16, 32, {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 1.0, "short_factor": FACTORS,
              "long_factor": LONG_FACTORS, "original_max_position_embeddings": 32}, [5]),
]


def record(head_dim, max_position, parameters, prompt_length):
    config = transformers.LlamaConfig(
        head_dim=head_dim, hidden_size=2 * head_dim, num_attention_heads=2,
        max_position_embeddings=max_position, rope_parameters=dict(parameters))
    rotary = LlamaRotaryEmbedding(config)
    positions = torch.arange(prompt_length)[None]
    rotary(torch.zeros(1, prompt_length, head_dim), positions)
    return {
        "rotary_dim": head_dim,
        "max_position": max_position,
        "parameters": parameters,
        "prompt_length": prompt_length,
        "attention_scaling": float(rotary.attention_scaling),
        "inv_freq_bits": rotary.inv_freq.float().view(torch.int32).tolist(),
    }


def main():
    rows = [record(head, positions, parameters, length)
            for head, positions, parameters, lengths in CASES for length in lengths]
    print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
