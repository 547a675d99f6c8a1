#!/usr/bin/env python3
"""Generation at batch 1 and a prompt of 512 on the CPU, beside llama.cpp and the read bandwidth, in one run.

    ./dev bench cpu_latency MODEL [--dummy-weights] [--llama-bench PROGRAM --gguf FILE] [--threads N]

MODEL is a model folder; FILE holds the same shape (better: the same weights) in bf16 for llama.cpp's `llama-bench`. Prints one table;
ratios above 1 are in our favour. Run it on an idle machine, or under `chrt -f 5` as root.
"""
import argparse
import json
import os
import subprocess


def lines(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def millrace(arguments, options, input_len, output_len):
    command = [os.environ.get("MILLRACE", "build/millrace"), "bench", "latency", options.model, "--json", "--quiet", "--threads",
               str(options.threads), "--input-len", str(input_len), "--output-len", str(output_len), "--num-iters",
               str(options.repeat), *arguments]
    return lines(command)[0]


def read_bandwidth(options):
    """GB/s: a product of one row with a matrix far larger than the caches is all reading."""
    found = lines([os.environ.get("MILLRACE", "build/millrace"), "explain", options.model, "--json", "--quiet", "--threads",
                   str(options.threads), *options.weights])
    one_row = [row for row in found if row["regime"] == "generation"]
    total_bytes = sum(row["bytes"] for row in one_row)
    return total_bytes / sum(row["ceiling_us"] for row in one_row) / 1e3, total_bytes


def llama_bench(options):
    command = [options.llama_bench, "-m", options.gguf, "-p", "512", "-n", str(options.tokens), "-t", str(options.threads), "-r",
               str(options.repeat), "-o", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    result = {}
    for row in json.loads(done.stdout):
        speeds = sorted(row["samples_ts"])
        result["prompt" if row["n_prompt"] else "generation"] = speeds[len(speeds) // 2]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dummy-weights", dest="weights", action="store_const", const=["--dummy-weights"], default=[])
    parser.add_argument("--llama-bench")
    parser.add_argument("--gguf")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    peer = llama_bench(options) if options.llama_bench else {}
    generation = millrace(options.weights, options, 1, options.tokens)
    prompt = millrace(options.weights, options, 512, 1)
    bandwidth, step_bytes = read_bandwidth(options)
    ours = {"generation": generation["output_tokens_per_s"], "prompt": 512 / prompt["first_token_s"]["p50"]}
    print(f"{options.model}, {options.threads} threads, medians of {options.repeat}")
    for what, speed in ours.items():
        note = f", {speed / peer[what]:.2f} x llama.cpp's {peer[what]:.1f}" if what in peer else ""
        if what == "generation":
            note += f", {100 * speed * step_bytes / 1e9 / bandwidth:.0f} % of the {bandwidth:.1f} GB/s read"
        print(f"  {what:10} {speed:9.1f} tokens/s{note}")


if __name__ == "__main__":
    main()
