#!/usr/bin/env python3
"""Time per token while a cache gets longer: what tpc run --generate --times prints, averaged over windows of steps.

    python bench/make_model.py /tmp/bench/model
    python bench/generate.py /tmp/bench/model --tpc build/release/tpc --tp 2 --length 2048 --entry 64

Each row: how many entries the cache has, milliseconds per step (median of the window), megabytes of the cache that a step's attention reads (--entry: kilobytes per
token: 2 * layers * KV heads * head size * 4 / 1024), and the megabytes that were moved in all because the cache grew (0 with a fixed room). A cache that
is copied at every step would write what attention reads once more in each.
Standard library only.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def measure(a, plan, context):
    """Milliseconds of each step behind the prompt's, and megabytes moved."""
    command = [a.tpc, "run", plan, "--generate", str(a.length), "--prompt-ids", "1,2,3,4", "--times"]
    err = run(command + (["--context", str(a.length + 4)] if context else [])).stderr
    steps = [float(x) for x in re.findall(r"^step \d+: ([0-9.]+) ms$", err, re.M)]
    return steps[1:], float(re.search(r"^states: ([0-9.]+) MB moved", err, re.M)[1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("--tpc", default="build/release/tpc")
    p.add_argument("--tp", type=int, default=2)
    p.add_argument("--length", type=int, default=1024)
    p.add_argument("--windows", type=int, default=8)
    p.add_argument("--entry", type=float, default=0)
    p.add_argument("--json", type=pathlib.Path)
    a = p.parse_args()
    plan = str(a.model / "generate.plan")
    run([a.tpc, "compile", str(a.model / "model.onnx"), "--tp", str(a.tp), "-o", plan])
    rows = []
    for context in (False, True):
        steps, moved = measure(a, plan, context)
        width = max(1, len(steps) // a.windows)
        for first in range(0, len(steps) - width + 1, width):
            window, entries = steps[first:first + width], 4 + first + width // 2
            rows.append({"room": "fixed" if context else "grown", "entries": entries, "ms": round(statistics.median(window), 3),
                         "least_ms": min(window), "read_mb": round(a.entry * entries / 1024, 1), "moved_mb": moved})
    print("| room | entries | ms per step, median | least | MB that attention reads | MB moved in all |\n|---|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['room']} | {r['entries']} | {r['ms']} | {r['least_ms']} | {r['read_mb'] or ''} | {r['moved_mb']} |")
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
