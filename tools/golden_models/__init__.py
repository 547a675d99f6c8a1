"""The tiny models whose outputs tools/golden.py records: one config.json each, as Hugging Face writes them.

One file per family, with `CONFIGS`: name -> config.json. Sizes are small and awkward on purpose (odd feed-forward
sizes, head sizes other than hidden / heads). Both spellings of config.json occur: `rope_theta`, `rope_scaling`,
`torch_dtype` and `rope_parameters`, `dtype`. Original context lengths are so short that every RoPE scaling rule acts
within the longest prompt.

A file may also have `build(config)`: the reference model (a torch module called like those of transformers, with
`config`) for architectures that transformers does not have; `ATTENTION`: the attn_implementation of transformers that is
right where the eager one is not; and `FAINT`: regular expressions of tensors (layer numbers written N) whose values do
not reach the logits, each with its reason.
"""
import importlib
import pkgutil

FAMILIES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
CONFIGS = {name: config for family in FAMILIES for name, config in getattr(family, "CONFIGS", {}).items()}
REFERENCES = {name: family.build for family in FAMILIES if hasattr(family, "build") for name in family.CONFIGS}
FAINT_TENSORS = {name: getattr(family, "FAINT", []) for family in FAMILIES for name in getattr(family, "CONFIGS", {})}
ATTENTION = {name: getattr(family, "ATTENTION", "eager") for family in FAMILIES for name in getattr(family, "CONFIGS", {})}
