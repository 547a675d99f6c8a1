#!/usr/bin/env python3
"""From the start of the process to the first token, of a checkpoint that lies in the page cache.

    MILLRACE=PROGRAM bench/device_start.py MODEL [--device cuda] [--runs 3] [--folder DIR]

MODEL is a folder with a config.json. Generated weights in bf16 are written as safetensors into DIR (default: a temporary folder,
deleted afterwards) by PyTorch and transformers; just written, they are in the page cache. Then `run` with a prompt of 32
tokens and one new token: first with an empty engine cache, then with the engine there. One JSON line a run: `first_token_s` from the
start of the process to its output, `total_s` to its end, `setup_s` as it reports it, and the most memory of its own that it had
(anonymous or pinned; mapped files are page cache).
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import torch_models

SHARD_BYTES = 4 << 30


def checkpoint_tensors(model):
    """(name, shape) of what a checkpoint holds; tied weights once."""
    seen = set()
    for name, value in model.named_parameters():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        for part in torch_models.parts(name, value.shape):
            if part[0] not in seen:
                seen.add(part[0])
                yield part


def write_checkpoint(folder, out, device):
    """Shards with an index, as save_pretrained writes them. Returns the bytes of all tensors."""
    (out / "config.json").write_text((folder / "config.json").read_text())
    index, shard, total = {}, {}, 0

    def flush():
        file = f"model-{len(set(index.values())) + 1:05}.safetensors"
        save_file({name: value.cpu() for name, value in shard.items()}, out / file, {"format": "pt"})
        index.update(dict.fromkeys(shard, file))
        shard.clear()

    held = 0
    for name, shape in checkpoint_tensors(torch_models.build(folder, torch.bfloat16, "cpu")):
        shard[name] = torch_models.tensor(0, name, shape, torch.bfloat16, device)
        size = 2 * shard[name].numel()
        held, total = held + size, total + size
        if held >= SHARD_BYTES:
            flush()
            held = 0
    if shard:
        flush()
    (out / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    return total


class OwnMemory(threading.Thread):
    """The most anonymous, shared and locked memory of a process, looked at every few milliseconds."""

    def __init__(self, process):
        super().__init__()
        self.process, self.most = process, 0
        self.start()

    def run(self):
        while self.process.poll() is None:
            try:
                lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            except OSError:
                return
            fields = dict(line.split(":", 1) for line in lines)
            held = [fields.get(key, "0 kB").split()[0] for key in ("RssAnon", "RssShmem", "VmPin")]
            self.most = max(self.most, 1024 * sum(map(int, held)))
            time.sleep(0.02)


def measure(folder, device, cache):
    command = [os.environ.get("MILLRACE", "build/millrace"), "run", folder, "--input-ids", ",".join(map(str, range(3, 35))),
               "--max-new-tokens", "1", "--greedy", "--ignore-eos", "--dtype", "bf16", "--device", device, "--max-batch-size", "1",
               "--max-seq-len", "64", "--json", "--quiet", "--cache-dir", cache]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        memory = OwnMemory(process)
        line = process.stdout.readline()
        first = time.monotonic() - start
        process.stdout.read()
    memory.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {process.returncode}")
    return {"first_token_s": round(first, 3), "total_s": round(time.monotonic() - start, 3),
            "setup_s": json.loads(line)["timing"]["setup_s"], "own_memory_bytes": memory.most}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help="where to write the checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        scratch = pathlib.Path(scratch)
        checkpoint = scratch / "model"
        checkpoint.mkdir()
        start = time.monotonic()
        total = write_checkpoint(pathlib.Path(options.model), checkpoint, options.device)
        written = round(time.monotonic() - start, 1)
        for run in range(options.runs):
            line = {"model": pathlib.Path(options.model).name, "checkpoint_bytes": total, "written_s": written,
                    "engine": "cached" if run else "built", **measure(checkpoint, options.device, scratch / "cache")}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
