#!/usr/bin/env python3
"""ONNX Runtime's side of the measurements: creates a session for the model of make_model.py, prefills, decodes one step.

    python bench/ort_peer.py MODEL.onnx [--what session|prefill|decode|all] [--repeat N] [--runs N] [--threads 2]

Each run is a process of its own, so that its peak memory means something and runs of others can be put between. It prints a JSON line
per run:    {"peer": "onnxruntime", "what": ..., "session_s": ..., "prefill_s": [...], "decode_s": [...], "peak_rss": bytes}
and with --runs > 1 one line {"summary": ...} with [minimum, median, maximum] of each figure over all runs. The times of the first call,
which allocates, are left out ("first_s").

`prefill` is 512 tokens with an empty past, `decode` one token with a past of 512; batch 1.

    python bench/ort_peer.py MODEL.onnx --device cuda [--past 512] [--steps 64] [--prefill 512,2048] [--limit SECONDS]

is for scripts/gpu-check: the same two with inputs and outputs that stay on the device (a present cache is written anew by each step, as the graph says), and a JSON line
per figure as torch_peer.py prints them: median of the calls, seconds, or why it was left out. --device cpu goes the same way without a GPU.

PyPI, as tested with Python 3.11: onnxruntime==1.31.1 numpy==2.3.5
"""
import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import time

import numpy as np


BFLOAT16 = 16   # onnx.TensorProto's; numpy has none
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(bfloat16)": np.uint16}


def feeds(session, tokens, past, seed=0):
    """Random ids below 100 and a random cache, shaped and typed by what the session declares; of bfloat16 the shape counts."""
    generator = np.random.default_rng(seed)
    values = {}
    for wanted in session.get_inputs():
        if wanted.name.startswith("past_key_values"):
            _, heads, _, head_dim = wanted.shape
            values[wanted.name] = generator.standard_normal((1, heads, past, head_dim), np.float32).astype(FLOATS[wanted.type])
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


def bound_call(ort, session, inputs, device):
    """A call whose inputs lie on the device and whose outputs are left there. A cache of bfloat16 is whatever its memory holds: that takes no other time."""
    binding = session.io_binding()
    for wanted in session.get_inputs():
        value = inputs[wanted.name]
        if wanted.type == "tensor(bfloat16)":
            placed = ort.OrtValue.ortvalue_from_shape_and_type(value.shape, BFLOAT16, device, 0)
        else:
            placed = ort.OrtValue.ortvalue_from_numpy(value, device, 0)
        binding.bind_ortvalue_input(wanted.name, placed)
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def call():
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
    return call


class TooLong(Exception):
    pass


def on_device(arguments):
    import onnxruntime as ort
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[arguments.device]

    def too_long(*_):
        raise TooLong

    def session():
        assert provider in ort.get_available_providers(), f"{provider} is not in this build"
        made = ort.InferenceSession(arguments.model, providers=[provider])
        assert made.get_providers()[0] == provider, f"{provider} could not be set up"
        return made

    def median_of(tokens, past, repeat):
        call = bound_call(ort, made, feeds(made, tokens, past), arguments.device)
        call()
        times = []
        for _ in range(repeat):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return statistics.median(times)
    signal.signal(signal.SIGALRM, too_long)
    made = None
    wanted = [("decode", 1, arguments.past, arguments.steps)] + [(f"prefill {n}", n, 0, 9) for n in arguments.prefill]
    for what, tokens, past, repeat in wanted:
        line = {"peer": "onnxruntime", "version": ort.__version__, "what": what, "way": "as it is"}
        signal.setitimer(signal.ITIMER_REAL, arguments.limit)
        try:
            made = made or session()
            line["s"] = median_of(tokens, past, repeat)
        except TooLong:
            line["left_out"] = f"not there within {arguments.limit:.0f} s"
        except Exception as e:      # a peer that fails is a figure that is missing, not an end
            line["left_out"] = f"{type(e).__name__}: {e}".splitlines()[0].replace('"', "'")[:200]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(line), flush=True)


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
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--past", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--prefill", type=lambda s: [int(n) for n in s.split(",")], default=[512, 2048])
    parser.add_argument("--limit", type=float, default=60, help="seconds for each figure")
    arguments = parser.parse_args()
    if arguments.device:
        return on_device(arguments)
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
