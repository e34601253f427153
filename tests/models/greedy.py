#!/usr/bin/env python3
"""Makes NAME/greedy.txt of the test models that write text: what ONNX Runtime writes greedily, the whole text run anew for each token.

    python tests/models/greedy.py [PATTERN...]

A line is a prompt and what follows it: `3,4,5 11,195,132`. A prompt is taken only if the likeliest token leads the second by 1e-3 of the
logits' spread at every step, so that rounding does not change the text. tests/cli/generate.sh compares. Nobody needs this to build or to test.

PyPI: as export.py.
"""
import fnmatch
import pathlib
import random
import sys

import numpy as np
import onnx
import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent
MODELS = ("llama-past-opt18 gpt2-past-opt18 llama-genai-fp32 llama-genai-int4 qwen3-genai-fp32 qwen3-genai-int4 gemma2-genai-fp32 "
          "gemma2-genai-int4 llama-dy18 gpt2-dy18 opt-dy18 qwen2-ts17 mistral-dy18 llama-leftpad-dy23").split()
WRITTEN = 14


def feed(session, text):
    given = {}
    for i in session.get_inputs():
        if i.name == "input_ids":
            x = np.array([text], np.int64)
        elif "mask" in i.name:
            x = np.ones((1, len(text)), np.int64)
        elif "position" in i.name:
            x = np.arange(len(text), dtype=np.int64)[None]
        elif i.name.startswith("past_key_values"):
            x = np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
        else:
            raise SystemExit(f"what is {i.name}?")
        given[i.name] = x
    return given


def write(session, prompt):
    """The tokens that follow, or None where one of them is in doubt."""
    text = list(prompt)
    for _ in range(WRITTEN):
        logits = session.run(["logits"], feed(session, text))[0][0, -1].astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        if logits[order[0]] - logits[order[1]] < 1e-3 * np.ptp(logits):
            return None
        text.append(int(order[0]))
    return text[len(prompt):]


def main(patterns):
    for name in MODELS:
        if patterns and not any(fnmatch.fnmatch(name, p) for p in patterns):
            continue
        model = onnx.load(HERE / name / "model.onnx")
        for node in model.graph.node:       # which lets ONNX Runtime round activations to eight bits
            for attribute in [a for a in node.attribute if a.name == "accuracy_level"]:
                node.attribute.remove(attribute)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        rng = random.Random(name)
        lines = []
        varied = 1 if name.startswith(("gemma2", "opt")) else 3     # random and tied: it says its last token again
        for length in (1, 3, 7, 12):
            for _ in range(200):
                prompt = [rng.randrange(160) for _ in range(length)]
                written = write(session, prompt)
                if written is not None and len(set(written)) >= varied:
                    break
            else:
                raise SystemExit(f"{name}: no prompt of {length} tokens is clear")
            lines.append(",".join(map(str, prompt)) + " " + ",".join(map(str, written)) + "\n")
        (HERE / name / "greedy.txt").write_text("".join(lines))
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
