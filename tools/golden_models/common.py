"""What the files of tiny models share."""


def old_spelling(theta=10000.0, scaling=None):
    return {"rope_theta": theta, "rope_scaling": scaling, "torch_dtype": "float32"}


def new_spelling(theta=10000.0, rope_type="default", **parameters):
    return {"rope_parameters": {"rope_theta": theta, "rope_type": rope_type, **parameters}, "dtype": "float32"}


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


def ramp(first, last, count):
    """Factors of longrope, one per rotated pair."""
    return [round(first + (last - first) * i / (count - 1), 4) for i in range(count)]
