"""Reads and writes safetensors files with the standard library."""
import array
import json
import pathlib
import struct
import sys

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "U8": 1}


def read_header(path):
    """({name: {dtype, shape, data_offsets}}, offset of the data)."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def read_tensors(path):
    """{name: (shape, array of float)} of a file that holds F32 only."""
    header, start = read_header(path)
    data = pathlib.Path(path).read_bytes()[start:]
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not F32")
        values = array.array("f")
        values.frombytes(data[entry["data_offsets"][0]:entry["data_offsets"][1]])
        if sys.byteorder == "big":
            values.byteswap()
        tensors[name] = (entry["shape"], values)
    return tensors


def write_tensors(path, tensors, dtype="F32"):
    """`tensors`: {name: shape}; every value is zero."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = SIZES[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
