#!/usr/bin/env python3
"""Trains the byte-level Llama in this folder on text.txt and exports it, with its key-value cache, to model.onnx.

    python examples/charlm/train.py [--steps N] [--threads N] [--output model.onnx]

The vocabulary is the 256 bytes: no tokenizer. About a million parameters; some twenty minutes on one core. Nobody needs
this to build or to test tpc: model.onnx is committed.

PyPI, as tested with Python 3.11: torch==2.9.1 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.31.1
numpy==2.3.5
"""
import argparse
import os
import pathlib
import shutil
import tempfile
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers as hf

HERE = pathlib.Path(__file__).resolve().parent
LENGTH, ROWS = 192, 24          # of a training batch
HELD_OUT = 30_000               # bytes at the end of the text, for the validation loss
PROMPTS = ("Elizabeth ", "It is a truth ", "\"My dear Mr. Bennet,\" ")

CONFIG = hf.LlamaConfig(        # 8 heads on 4 KV heads of 20, ffn 360: splits over 2 and 4 ranks, the ffn also over 3 and 6
    vocab_size=256, hidden_size=160, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
    intermediate_size=360, max_position_embeddings=1024, bos_token_id=10, eos_token_id=None, pad_token_id=None)


def rows(data, generator):
    starts = torch.randint(0, len(data) - LENGTH - 1, (ROWS,), generator=generator)
    return torch.stack([data[s:s + LENGTH + 1] for s in starts.tolist()])


def loss_of(model, batch):
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def train(model, data, steps):
    generator = torch.Generator().manual_seed(1)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and ".layers." in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or ".layers." not in n]
    optimizers = [torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
                  torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)]
    peaks = [group["lr"] for o in optimizers for group in o.param_groups]
    held_out = data[-HELD_OUT:].unfold(0, LENGTH + 1, LENGTH)
    started = time.time()
    for step in range(steps):
        rate = min(1.0, (step + 1) / 50) * min(1.0, 2 * (1 - step / steps)) # up, level, and in the second half down to 0
        for group, peak in zip([g for o in optimizers for g in o.param_groups], peaks):
            group["lr"] = peak * rate
        loss = loss_of(model, rows(data[:-HELD_OUT], generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            with torch.no_grad():
                validation = loss_of(model, held_out[:48])
            print(f"step {step:5}  loss {loss.item():.3f}  held out {validation.item():.3f}  {time.time() - started:.0f} s", flush=True)


def export(model, path):
    """By Optimum: input_ids, attention_mask, position_ids, past_key_values.N.{key,value} -> logits, present.N.{key,value}"""
    from optimum.exporters.onnx import main_export
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder + "/in")
        main_export(folder + "/in", output=folder + "/out", task="text-generation-with-past", opset=18, do_validation=False)
        shutil.copy(folder + "/out/model.onnx", path)


def generate(path, prompt, count):
    """Greedy, by ONNX Runtime: the prompt at once with an empty past, then byte by byte."""
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    new, done = list(prompt.encode()), []
    head_dim = CONFIG.hidden_size // CONFIG.num_attention_heads
    cache = {f"past_key_values.{i}.{part}": np.zeros((1, CONFIG.num_key_value_heads, 0, head_dim), np.float32)
             for i in range(CONFIG.num_hidden_layers) for part in ("key", "value")}
    for _ in range(count):
        past = len(done)
        done += new
        outputs = session.run(None, {
            "input_ids": np.array([new]), "attention_mask": np.ones((1, len(done)), np.int64),
            "position_ids": np.arange(past, len(done))[None], **cache})
        names = [o.name for o in session.get_outputs()]
        cache = {n.replace("present", "past_key_values"): v for n, v in zip(names, outputs) if n.startswith("present")}
        new = [int(outputs[0][0, -1].argmax())]
    return bytes(done + new)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, default=HERE / "model.onnx")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    text = (HERE / "text.txt").read_bytes()
    data = torch.tensor(np.frombuffer(text, np.uint8).astype(np.int64))
    model = hf.LlamaForCausalLM(CONFIG)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(text):,} bytes of text")
    train(model.train(), data, arguments.steps)
    export(model.eval(), arguments.output)
    for prompt in PROMPTS:
        written = generate(arguments.output, prompt, 160)
        ids = torch.tensor([list(prompt.encode())])
        by_torch = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=160, pad_token_id=0)
        assert bytes(by_torch[0].tolist()) == written, "the exported model writes something else"
        print("---\n" + written.decode(errors="replace"))


if __name__ == "__main__":
    main()
