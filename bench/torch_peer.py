#!/usr/bin/env python3
"""PyTorch's side of scripts/gpu-check: a Llama of given sizes, written plainly, decoded and prefilled eagerly and compiled.

    python3 bench/torch_peer.py type=bf16 layers=8 hidden=4096 heads=32 kv_heads=8 ffn=14336 vocab=32000 [--limit SECONDS]

The model: RMSNorm, rotary embedding, attention with grouped heads (scaled_dot_product_attention; of one row two products, which is faster), SiLU gate,
joined weights of q, k, v and of gate, up; a static cache with little more room than is needed; logits of all positions, as the ONNX file has them. Random weights. Nothing but torch is needed.

A decode step is one token behind --past entries: position and token stay on the GPU, the next token is the argmax of the logits there. Prefill is --prefill
tokens into an empty cache. Each comes in two ways:
  eager     as it is written
  compiled  torch.compile (inductor), then the whole step captured as one CUDA graph: what mode="reduce-overhead" does, without its checks at each
            call. Decode is compiled as a whole; prefill layer by layer, which takes a layer's time instead of all of them, since products dominate there.
  tuned     with --tune: as compiled, and inductor tries more variants of its kernels (coordinate_descent_tuning), which takes long; decode only
What does not come within --limit seconds is left out, with a line that says so. Prints a JSON line per figure: median of the calls, seconds.

As tested with torch 2.9 and 2.11.
"""
import argparse
import json
import math
import signal
import statistics
import time

import torch
import torch._inductor.config
import torch.nn.functional as F


class Cache(torch.nn.Module):
    def __init__(self, heads, context, head_dim, dtype):
        super().__init__()
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, heads, context, head_dim, dtype=dtype))


class Layer(torch.nn.Module):
    def __init__(self, a, dtype):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = a.heads, a.kv_heads, a.hidden // a.heads
        wide, narrow = a.heads * self.head_dim, a.kv_heads * self.head_dim
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False, dtype=dtype)
        self.qkv, self.out = linear(a.hidden, wide + 2 * narrow), linear(wide, a.hidden)
        self.gate_up, self.down = linear(a.hidden, 2 * a.ffn), linear(a.ffn, a.hidden)
        self.norm = torch.nn.ParameterList(torch.nn.Parameter(torch.ones(a.hidden, dtype=dtype)) for _ in range(2))
        self.cache = Cache(a.kv_heads, a.context, self.head_dim, dtype)

    def normed(self, x, weight):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight

    def rotated(self, x, cos, sin):
        half = self.head_dim // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    def forward(self, x, at, cos, sin, mask):
        rows = x.shape[1]
        split = self.qkv(self.normed(x, self.norm[0])).view(1, rows, -1, self.head_dim).transpose(1, 2)
        q, k, v = split.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = self.rotated(q, cos, sin), self.rotated(k, cos, sin)
        keys, values = self.cache.keys, self.cache.values
        keys.index_copy_(2, at, k)
        values.index_copy_(2, at, v)
        if mask is None:        # an empty cache: only what came now counts
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        else:                   # one row: the heads of a group are rows of one product, nothing is repeated
            grouped = q.view(1, self.kv_heads, -1, self.head_dim) * self.head_dim ** -0.5
            scores = (grouped @ keys.transpose(2, 3)).masked_fill(mask, -math.inf)
            y = (scores.float().softmax(-1).to(x.dtype) @ values).view(1, self.heads, 1, self.head_dim)
        x = x + self.out(y.transpose(1, 2).reshape(1, rows, -1))
        gate, up = self.gate_up(self.normed(x, self.norm[1])).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self, a, dtype):
        super().__init__()
        self.embedding = torch.nn.Embedding(a.vocab, a.hidden, dtype=dtype)
        self.layers = torch.nn.ModuleList(Layer(a, dtype) for _ in range(a.layers))
        self.head = torch.nn.Linear(a.hidden, a.vocab, bias=False, dtype=dtype)
        self.norm = torch.nn.Parameter(torch.ones(a.hidden, dtype=dtype))
        half = a.hidden // a.heads // 2
        angle = torch.outer(torch.arange(a.context).float(), 10000.0 ** -(torch.arange(half).float() / half)).repeat(1, 2)
        self.register_buffer("cos", angle.cos().to(dtype))
        self.register_buffer("sin", angle.sin().to(dtype))
        self.register_buffer("places", torch.arange(a.context))

    def forward(self, token, at):
        """token [1, rows], at [rows]: their places -> logits [1, rows, vocabulary]"""
        x = self.embedding(token)
        mask = (self.places > at).view(1, 1, 1, -1) if token.shape[1] == 1 else None
        cos, sin = self.cos[at], self.sin[at]
        for layer in self.layers:
            x = layer(x, at, cos, sin, mask)
        return self.head(self.layers[0].normed(x, self.norm))


class TooLong(Exception):
    pass


def synchronize(a):
    if a.device == "cuda":
        torch.cuda.synchronize()


def timed(a, call, count):
    """Median seconds of a call. Decode steps follow one another without waiting, as they do where nobody looks: a few rounds of 16."""
    call()
    synchronize(a)
    times, each = [], 16 if count > 16 else 1
    for _ in range(max(3, count // each)):
        begin = time.perf_counter()
        for _ in range(each):
            call()
        synchronize(a)
        times.append((time.perf_counter() - begin) / each)
    return statistics.median(times)


def captured(a, call):
    """The call as one CUDA graph; where there is no GPU, itself."""
    if a.device != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def decode_call(a, model):
    token = torch.zeros(1, 1, dtype=torch.long, device=a.device)
    at = torch.full((1,), a.past, dtype=torch.long, device=a.device)
    step = lambda: (token.copy_(model(token, at)[:, -1:].argmax(-1)), at.add_(1).clamp_(max=a.context - 1))

    def restart():
        at.fill_(a.past)
    return step, restart


def prefill_call(a, model, rows):
    token = torch.randint(0, a.vocab, (1, rows), device=a.device)
    at = torch.arange(rows, device=a.device)
    return lambda: model(token, at)


def measure(a, model):
    """(what, way, function that gives seconds) in the order in which they are tried."""
    def decode(way):
        torch.compiler.reset()
        torch._inductor.config.coordinate_descent_tuning = way == "tuned"
        run = torch.compile(model, dynamic=False, fullgraph=True) if way != "eager" else model
        step, restart = decode_call(a, run)
        if way != "eager":
            step = captured(a, step)
        restart()
        return timed(a, step, a.steps)

    def prefill(way, rows):
        if way == "compiled":
            for layer in model.layers:
                layer.compile(dynamic=False, fullgraph=True)
        call = prefill_call(a, model, rows)
        return timed(a, captured(a, call) if way == "compiled" else call, 9)
    yield "decode", "eager", lambda: decode("eager")
    for rows in a.prefill:
        yield f"prefill {rows}", "eager", lambda: prefill("eager", rows)
    yield "decode", "compiled", lambda: decode("compiled")
    if a.tune:
        yield "decode", "tuned", lambda: decode("tuned")
    for rows in a.prefill:
        yield f"prefill {rows}", "compiled", lambda: prefill("compiled", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", help="KEY=VALUE")
    parser.add_argument("--past", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--prefill", type=lambda s: [int(n) for n in s.split(",")], default=[512, 2048])
    parser.add_argument("--limit", type=float, default=60, help="seconds for each figure")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args()
    for name, default in (("type", "bf16"), ("layers", 4), ("hidden", 2048), ("heads", 16), ("kv_heads", 16), ("ffn", 5632), ("vocab", 32000)):
        setattr(a, name, default)
    for pair in a.sizes:
        key, value = pair.split("=")
        setattr(a, key, value if key == "type" else int(value))
    a.context = max(a.past + a.steps + 64, *a.prefill)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[a.type]
    torch.manual_seed(1)
    with torch.device(a.device):
        model = Model(a, dtype).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.uniform_(-0.02, 0.02)

    def too_long(*_):
        raise TooLong
    signal.signal(signal.SIGALRM, too_long)
    for what, way, run in measure(a, model):
        line = {"peer": "torch", "version": torch.__version__, "what": what, "way": way}
        begin = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, a.limit)
        try:
            with torch.no_grad():
                line["s"] = run()
            line["setup_s"] = round(time.perf_counter() - begin - line["s"], 1)
        except TooLong:
            line["left_out"] = f"not there within {a.limit:.0f} s"
        except Exception as e:      # a peer that fails is a figure that is missing, not an end
            line["left_out"] = f"{type(e).__name__}: {e}".splitlines()[0][:200]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
