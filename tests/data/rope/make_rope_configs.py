"""Records how transformers understands the RoPE part of config.json, in all its spellings.

  python make_rope_configs.py > rope_configs.json

Each row has the config as a file would hold it and the parameters that transformers makes of it (recorded with 5.23).
"""

import json
import sys

import transformers

SHORT = [1.0, 1.1, 1.2, 1.3]
LONG = [2.0, 3.0, 4.0, 5.0]
# model type, what config.json says besides the sizes, layer type
CASES = [
    ("llama", {}, ""),
    ("llama", {"rope_theta": 500000.0}, ""),
    ("llama", {"rope_theta": 500000, "rope_scaling": None}, ""),
    ("llama", {"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}}, ""),
    ("llama", {"rope_parameters": {"rope_type": "default"}, "rope_theta": 77.0}, ""),
    ("llama", {"rope_theta": 20000.0, "rope_scaling": {"type": "linear", "factor": 4}}, ""),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}, ""),
    ("llama", {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.5}}, ""),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0},
               "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0}}, ""),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ""),
    ("llama", {"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}, ""),
    ("llama", {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 32.0,
                                   "low_freq_factor": 1.0, "high_freq_factor": 4.0}}, ""),
    ("llama", {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "llama3", "factor": 32.0,
                                   "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                   "original_max_position_embeddings": 64},
               "original_max_position_embeddings": 128}, ""),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, ""),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2, "mscale": 0.7,
                                "mscale_all_dim": 0.9, "truncate": False, "attention_factor": 1.5}}, ""),
    ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 4.0,
                                "original_max_position_embeddings": 64}}, ""),
    ("llama", {"partial_rotary_factor": 0.5,
               "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, ""),
    ("llama", {"partial_rotary_factor": 0.5, "rope_parameters": {
        "rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.25}}, ""),
    ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}}}, "full_attention"),
    ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}}}, "sliding_attention"),
]


def main():
    rows = []
    for model_type, extra, layer_type in CASES:
        raw = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
               "num_hidden_layers": 2, "max_position_embeddings": 256, "model_type": model_type, **extra}
        if extra.get("rope_scaling", {}) and "short_factor" in extra["rope_scaling"]:
            raw.update(hidden_size=32, head_dim=8)
        text = json.dumps(raw)
        config = transformers.CONFIG_MAPPING[model_type].from_dict(json.loads(text))
        config.standardize_rope_params()  # as the computation of the frequencies does once more
        parameters = config.rope_parameters
        rows.append({"config": raw, "layer_type": layer_type,
                     "parameters": parameters[layer_type] if layer_type else parameters})
    print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
