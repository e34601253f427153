#!/usr/bin/env python3
"""Measures tpc beside ONNX Runtime on the model of make_model.py, the runs of the two interleaved.

    python bench/run.py MODEL_DIR --tpc build/release/tpc [--tp 2] [--rounds 5] [--graph DIR]... [--json FILE]

Each round makes, one after the other: tpc compile, an ORT session, tpc prefill, ORT prefill, tpc decode, ORT decode; and for each --graph
(a model whose weights are not written) tpc compile and an ORT session. Every run is its own process; its peak memory is what the kernel
says of that process. Printed at the end: minimum, median, maximum of each figure, the ratio of the medians, and by how much
the logits of the two differ.

PyPI, as tested with Python 3.11: onnx==1.23.2 onnxruntime==1.31.1 numpy==2.3.5
"""
import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import onnx
import onnx.numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import ort_peer

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class Peak(threading.Thread):
    """The peak memory of a process, read while it runs: what wait4 reports is never less than the memory of who started it."""
    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path, self.bytes, self.ended = f"/proc/{pid}/status", 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.005):
            try:
                found = re.search(r"^VmHWM:\s*(\d+) kB", open(self.path).read(), re.M)
            except OSError:
                return
            self.bytes = 1024 * int(found[1]) if found else self.bytes


def process(command):
    """Runs it; returns {wall_s, peak_rss, text}. Both streams are read, since timings may be on either."""
    own = int(re.search(r"^VmHWM:\s*(\d+) kB", open("/proc/self/status").read(), re.M)[1])
    with tempfile.TemporaryFile("w+") as text:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=text, stderr=text)
        peak = Peak(child.pid)
        peak.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        peak.ended.set()
        child.returncode = os.waitstatus_to_exitcode(status)
        text.seek(0)
        said = text.read()
    if child.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {child.returncode}\n{said[-2000:]}")
    return {"wall_s": wall, "peak_rss": 1024 * usage.ru_maxrss if usage.ru_maxrss > own else peak.bytes, "text": said}


class Declared:
    """Stands in for a session where only the declared inputs matter."""
    def __init__(self, path):
        self.graph = onnx.load(path, load_external_data=False).graph
        initializers = {i.name for i in self.graph.initializer}
        self.inputs = [i for i in self.graph.input if i.name not in initializers]

    def get_inputs(self):
        class Input:
            pass
        found = []
        for value in self.inputs:
            one = Input()
            one.name = value.name
            one.shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            found.append(one)
        return found


def write_inputs(folder, declared, tokens, past):
    """The same numbers that ort_peer.py feeds, as input_K.pb in the order of the graph."""
    folder.mkdir()
    values = ort_peer.feeds(declared, tokens, past)
    for k, name in enumerate(v.name for v in declared.inputs):
        (folder / f"input_{k}.pb").write_bytes(onnx.numpy_helper.from_array(values[name], name).SerializeToString())
    return values


def tpc_run(tpc, plan, inputs, repeat):
    """Seconds of each repeat as tpc prints them ("run K: 12.3 ms"); where it does not, the wall clock of 1 + repeat runs against 1."""
    many = process([tpc, "run", plan, "--inputs", inputs, "--repeat", str(1 + repeat)])
    printed = [float(x) * UNITS[u] for x, u in re.findall(r"^run\s+\d+:\s*([0-9.]+)\s*(s|ms|us)\b", many["text"], re.M)]
    if len(printed) == 1 + repeat:
        return {"first_s": printed[0], "s": printed[1:], "peak_rss": many["peak_rss"], "load_s": many["wall_s"] - sum(printed)}
    one = process([tpc, "run", plan, "--inputs", inputs, "--repeat", "1"])
    return {"s": [(many["wall_s"] - one["wall_s"]) / repeat], "peak_rss": many["peak_rss"], "load_s": one["wall_s"]}


def ort(model, what, arguments):
    command = [sys.executable, str(HERE / "ort_peer.py"), str(model), "--what", what, "--tokens", str(arguments.tokens),
               "--repeat", str(arguments.repeat), "--threads", str(arguments.threads)]
    said = process(command)
    report = json.loads(said["text"].strip().splitlines()[-1])
    return report


def difference(tpc, plan, model, inputs, values, scratch):
    """Largest difference of the first output, relative to its largest magnitude."""
    import onnxruntime
    process([tpc, "run", plan, "--inputs", inputs, "--outputs", scratch])
    ours = onnx.numpy_helper.to_array(onnx.TensorProto.FromString((scratch / "output_0.pb").read_bytes()))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    theirs = session.run([session.get_outputs()[0].name], values)[0]
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tpc", required=True)
    parser.add_argument("--tp", type=int, default=2, help="ranks for prefill and decode")
    parser.add_argument("--compile-tp", type=int, default=4, help="ranks for the compile that is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime")
    parser.add_argument("--graph", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--json", type=pathlib.Path)
    a = parser.parse_args()
    model = a.model / "model.onnx"
    figures = {}

    def note(name, value):
        figures.setdefault(name, []).extend(value if isinstance(value, list) else [value])

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        declared = Declared(model)
        values = {"prefill": write_inputs(scratch / "prefill", declared, a.tokens, 0),
                  "decode": write_inputs(scratch / "decode", declared, 1, a.tokens)}
        plan = scratch / "plan.bin"
        process([a.tpc, "compile", model, "--tp", str(a.tp), "-o", plan])
        differ = {}
        for what in values:        # also fills tpc's cache of kernels
            (scratch / f"{what}-out").mkdir()
            differ[what] = difference(a.tpc, plan, model, scratch / what, values[what], scratch / f"{what}-out")
        for number in range(a.rounds):
            print(f"round {number + 1} of {a.rounds}", file=sys.stderr, flush=True)
            for name, path in [("", model)] + [(f" {g.name}", g / "model.onnx") for g in a.graph]:
                ours = process([a.tpc, "compile", path, "--tp", str(a.compile_tp), "-o", scratch / "measured.bin"])
                theirs = ort(path, "session", a)
                note(f"compile{name} s: tpc", ours["wall_s"])
                note(f"compile{name} s: ort", theirs["session_s"])
                note(f"compile{name} peak MB: tpc", ours["peak_rss"] / 1e6)
                note(f"compile{name} peak MB: ort", theirs["peak_rss"] / 1e6)
            for what in ("prefill", "decode"):
                ours, theirs = tpc_run(a.tpc, plan, scratch / what, a.repeat), ort(model, what, a)
                note(f"{what} s: tpc", ours["s"])
                note(f"{what} s: ort", theirs[f"{what}_s"])
                note(f"{what} load s: tpc", ours["load_s"])
                note(f"{what} load s: ort", theirs["session_s"])
                note(f"{what} peak MB: tpc", ours["peak_rss"] / 1e6)
                note(f"{what} peak MB: ort", theirs["peak_rss"] / 1e6)

    summary = {name: [min(v), statistics.median(v), max(v)] for name, v in figures.items()}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; tpc on {a.tp} ranks, ORT on {a.threads} threads; "
          f"{a.rounds} rounds; minimum / median / maximum")
    for name in [n.removesuffix(": tpc") for n in summary if n.endswith(": tpc")]:
        ours, theirs = summary[name + ": tpc"], summary[name + ": ort"]
        print(f"{name:24} tpc {' / '.join(f'{v:.4g}' for v in ours):28} ort {' / '.join(f'{v:.4g}' for v in theirs):28} "
              f"tpc : ort {ours[1] / theirs[1]:.2f}")
    for what, value in differ.items():
        print(f"{what}: logits differ by {value:.1e} of the largest")
    if a.json:
        a.json.write_text(json.dumps({"figures": figures, "summary": summary, "difference": differ}, indent=1) + "\n")


if __name__ == "__main__":
    main()
