#!/usr/bin/env python3
"""ONNX Runtime's side of the measurements: creates a session for the model of make_model.py, prefills, decodes one step.

    python bench/ort_peer.py MODEL.onnx [--what session|prefill|decode|all] [--repeat N] [--runs N] [--threads 2]

Each run is a process of its own, so that its peak memory means something and runs of others can be put between. It prints a JSON line
per run:    {"peer": "onnxruntime", "what": ..., "session_s": ..., "prefill_s": [...], "decode_s": [...], "peak_rss": bytes}
and with --runs > 1 one line {"summary": ...} with [minimum, median, maximum] of each figure over all runs. The times of the first call,
which allocates, are left out ("first_s").

`prefill` is 512 tokens with an empty past, `decode` one token with a past of 512; batch 1.

PyPI, as tested with Python 3.11: onnxruntime==1.31.1 numpy==2.3.5
"""
import argparse
import json
import re
import statistics
import subprocess
import sys
import time

import numpy as np


def feeds(session, tokens, past, seed=0):
    """Random ids below 100 and a random cache, shaped by what the session declares."""
    generator = np.random.default_rng(seed)
    values = {}
    for wanted in session.get_inputs():
        if wanted.name.startswith("past_key_values"):
            _, heads, _, head_dim = wanted.shape
            values[wanted.name] = generator.standard_normal((1, heads, past, head_dim), np.float32)
        elif wanted.name == "attention_mask":
            values[wanted.name] = np.ones((1, past + tokens), np.int64)
        elif wanted.name == "position_ids":
            values[wanted.name] = np.arange(past, past + tokens)[None]
        else:
            values[wanted.name] = generator.integers(0, 100, (1, tokens))
    return values


def timed_calls(session, inputs, repeat):
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - started)
    return times[0], times[1:]


def single_run(arguments):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    report = {"peer": "onnxruntime", "version": onnxruntime.__version__, "threads": arguments.threads, "what": arguments.what}
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    report["session_s"] = time.perf_counter() - started
    if arguments.what in ("prefill", "all"):
        report["prefill_first_s"], report["prefill_s"] = timed_calls(session, feeds(session, arguments.tokens, 0), arguments.repeat)
    if arguments.what in ("decode", "all"):
        report["decode_first_s"], report["decode_s"] = timed_calls(session, feeds(session, 1, arguments.tokens), arguments.repeat)
    report["peak_rss"] = 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB", open("/proc/self/status").read(), re.M)[1])
    print(json.dumps(report), flush=True)


def summarize(reports):
    """[minimum, median, maximum] of each figure; lists of repeats are thrown together."""
    figures = {}
    for report in reports:
        for key, value in report.items():
            if key.endswith("_s") or key.startswith("peak_rss"):
                figures.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return {key: [min(v), statistics.median(v), max(v)] for key, v in figures.items() if v}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--what", choices=("session", "prefill", "decode", "all"), default="all")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.runs == 1:
        return single_run(arguments)
    reports = []
    for _ in range(arguments.runs):
        command = [sys.executable, __file__, arguments.model, "--what", arguments.what, "--tokens", str(arguments.tokens),
                   "--repeat", str(arguments.repeat), "--threads", str(arguments.threads)]
        line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(line, end="", flush=True)
        reports.append(json.loads(line))
    print(json.dumps({"summary": summarize(reports), "runs": len(reports)}))


if __name__ == "__main__":
    main()
