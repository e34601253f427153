#!/usr/bin/env python3
"""Writes interpret_rows.txt: what every row of ops.def gives on numbers of every type, by numpy and Python's integers.

    python3 tests/unit/interpret_rows.py > tests/unit/interpret_rows.txt      (pip install numpy scipy ml_dtypes)

Nobody needs it to build or test: the output is committed. interpret_test.c runs each graph; its outputs come in pairs, what a row gives
and the constant that it should be. A graph begins with "== NAME exact|close"; close allows two units in the last place.
"""
import itertools
import math

import ml_dtypes
import numpy as np
from scipy.special import erf

np.seterr(all="ignore")
F64 = np.float64
FLOATS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
INTS = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64}
ALL = {**FLOATS, **INTS, "bool": np.bool_}
random = np.random.default_rng(7)


def name_of(a):
    return next(n for n, t in ALL.items() if a.dtype == t)


def bits(t):
    return 8 * np.dtype(ALL[t]).itemsize


def wrap(x, t):
    """A Python integer as type t holds it."""
    x &= (1 << bits(t)) - 1
    return x - (1 << bits(t)) if t[0] == "i" and x >> (bits(t) - 1) else x


def to(values, t):
    """float64 (or integers) as type t: floats are rounded once, integers wrap."""
    a = values if isinstance(values, np.ndarray) else np.array(values, dtype=F64 if t in FLOATS else object)
    if t in FLOATS:
        return a.astype(F64).astype(FLOATS[t])
    flat = [wrap(int(x), t) if t != "bool" else bool(x) for x in a.reshape(-1)]
    return np.array(flat, dtype=ALL[t]).reshape(a.shape)


def some(t, shape, special=True):
    n = int(np.prod(shape))
    if t == "bool":
        return random.integers(0, 2, n).astype(np.bool_).reshape(shape)
    if t in FLOATS:
        x = to(np.round(random.uniform(-4, 4, n), 3), t)
        odd = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, 2.5, -2.5, 0.5]
    else:
        low, high = (-(1 << (bits(t) - 1)), (1 << (bits(t) - 1)) - 1) if t[0] == "i" else (0, (1 << bits(t)) - 1)
        x = to(random.integers(-9 if t[0] == "i" else 0, 20, n), t)
        odd = [0, low, high, high - 1, 1]
    if special and n > len(odd):
        for i, at in zip(odd, random.permutation(n)):
            x[at] = i
    return x.reshape(shape)


def ints(a):
    """As an array of Python's integers."""
    return np.array([int(x) for x in a.reshape(-1)], dtype=object).reshape(a.shape)


class Graph:
    def __init__(self, name, how):
        self.lines, self.outputs, self.count = [f"== {name} {how}"], [], 0

    def type(self, t, shape):
        return f"{t}[{', '.join(map(str, shape))}]"

    def add(self, text, t=None, shape=None):
        self.count += 1
        typed = f": {self.type(t, shape)}" if t else ""
        self.lines.append(f"%{self.count}{typed} = {text}")
        return f"%{self.count}"

    def constant(self, a):
        data = "[]" if a.size == 0 else 'x"' + np.ascontiguousarray(a).tobytes().hex() + '"'
        return self.add(f"constant data {data}", name_of(a), a.shape)

    def expect(self, label, got, wanted):
        other = wanted if isinstance(wanted, str) else self.constant(wanted)
        self.outputs += [f'output "{label}" {got}', f'output "{label}" {other}']

    def row(self, label, text, wanted):
        wanted = np.asarray(wanted)
        self.expect(label, self.add(text, name_of(wanted), wanted.shape), wanted)

    def done(self):
        print("\n".join(self.lines + self.outputs))


# ---- pointwise ----
def sign(x):
    return math.nan if math.isnan(x) else (x > 0) - (x < 0)


UNARY = {"neg": np.negative, "abs": np.abs, "sign": np.vectorize(sign, otypes=[F64]), "exp": np.exp, "log": np.log, "log1p": np.log1p,
         "expm1": np.expm1, "sqrt": np.sqrt, "recip": lambda x: 1 / x, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
         "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
         "atanh": np.arctanh, "erf": erf, "tanh": np.tanh, "floor": np.floor, "ceil": np.ceil, "round": np.rint}
UNARY_INT = {"neg": lambda x: -x, "abs": abs, "sign": lambda x: (x > 0) - (x < 0), "not": lambda x: ~x}


def unary():
    for t, shape in itertools.product(FLOATS, [(13,), (3, 7), (0,), ()]):
        g, a = Graph(f"unary {t} {shape}", "close"), some(t, shape)
        v = g.constant(a)
        for op, f in UNARY.items():
            if shape == (13,) or op in ("neg", "exp", "floor"):
                g.row(op, f"{op} {v}", to(f(a.astype(F64)), t))
        g.row("isnan", f"isnan {v}", np.isnan(a.astype(F64)))
        for mode in (1, 2, 3):
            x = a.astype(F64)
            g.row(f"isinf {mode}", f"isinf {v} mode {mode}", (np.isposinf(x) & bool(mode & 1)) | (np.isneginf(x) & bool(mode & 2)))
        g.done()
    for t, shape in itertools.product(INTS, [(13,), (0,)]):
        g, a = Graph(f"unary {t} {shape}", "exact"), some(t, shape)
        v = g.constant(a)
        for op, f in UNARY_INT.items():
            g.row(op, f"{op} {v}", to([f(x) for x in ints(a)], t))
        g.done()
    g, a = Graph("unary bool", "exact"), some("bool", (7,))
    g.row("not", f"not {g.constant(a)}", ~a)
    g.done()


def cast_one(x, source, t):
    if t == "bool":
        return x != 0
    if t in FLOATS:
        return x
    if source in FLOATS:
        low, high = (-(1 << (bits(t) - 1)), (1 << (bits(t) - 1)) - 1) if t[0] == "i" else (0, (1 << bits(t)) - 1)
        if math.isnan(x):
            return 0
        return high if x >= high else low if x <= low else int(x)
    return wrap(x, t)


def casts():
    for source in ALL:
        g, a = Graph(f"cast {source}", "exact"), some(source, (13,))
        if source in FLOATS:
            a = np.concatenate([a, to([300.0, -300.0, 1e5, -7.9, 7.9, 3e38, 1e-8], source)])
        v = g.constant(a)
        values = [float(x) for x in a] if source in FLOATS else [int(x) for x in a]
        for t in ALL:
            if t != source:
                g.row(t, f"cast {v}", to(np.array([cast_one(x, source, t) for x in values], dtype=object if t in INTS else None), t))
        g.done()


def truncated(a, b):
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def integer_power(a, b):
    return a ** b if b >= 0 else 1 if a == 1 else (-1 if b % 2 else 1) if a == -1 else 0


def shifted(t, left):
    def f(a, b):
        if not 0 <= b < bits(t):
            return -1 if a < 0 and not left else 0
        return a << b if left else a >> b
    return f


def no_nan(f):
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), math.nan, f(a, b))


BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "mod": np.fmod,
          "max": no_nan(np.maximum), "min": no_nan(np.minimum)}
BINARY_INT = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": truncated, "max": max, "min": min,
              "mod": lambda a, b: 0 if b == 0 else a - truncated(a, b) * b, "and": lambda a, b: a & b, "or": lambda a, b: a | b,
              "xor": lambda a, b: a ^ b}
TESTS = {"eq": lambda a, b: a == b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b}


def binary():
    for t, shape in itertools.product(FLOATS, [(3, 11), (0,), (1,)]):
        g, a, b = Graph(f"binary {t} {shape}", "close"), some(t, shape), some(t, shape)
        x, y = g.constant(a), g.constant(b)
        for op, f in BINARY.items():
            g.row(op, f"{op} {x}, {y}", to(f(a.astype(F64), b.astype(F64)), t))
        for op, f in TESTS.items():
            g.row(op, f"{op} {x}, {y}", f(a.astype(F64), b.astype(F64)))
        g.done()
    for t, shape in itertools.product(INTS, [(3, 11), (0,)]):
        g, a, b = Graph(f"binary {t} {shape}", "exact"), some(t, shape), some(t, shape)
        if a.size:
            a.reshape(-1)[0], b.reshape(-1)[0] = (to([-(1 << (bits(t) - 1)), -1], t))  # the quotient that does not fit
        x, y = g.constant(a), g.constant(b)
        small = to(np.where(ints(b) % 3 == 0, ints(b) % 7, ints(b) % (bits(t) + 3)), t)
        s = g.constant(small)
        apply = lambda f, b: np.array([f(p, q) for p, q in zip(ints(a).reshape(-1), ints(b).reshape(-1))], dtype=object).reshape(shape)
        for op, f in BINARY_INT.items():
            g.row(op, f"{op} {x}, {y}", to(apply(f, b), t))
        g.row("pow", f"pow {x}, {s}", to(apply(integer_power, small), t))
        g.row("shl", f"shl {x}, {s}", to(apply(shifted(t, True), small), t))
        g.row("shr", f"shr {x}, {s}", to(apply(shifted(t, False), small), t))
        for op, f in TESTS.items():
            g.row(op, f"{op} {x}, {y}", to(apply(f, b), "bool"))
        g.done()
    g, a, b = Graph("binary bool", "exact"), some("bool", (13,)), some("bool", (13,))
    x, y = g.constant(a), g.constant(b)
    for op, f in {"and": a & b, "or": a | b, "xor": a ^ b, "max": a | b, "min": a & b, "eq": a == b, "lt": ~a & b, "le": ~a | b}.items():
        g.row(op, f"{op} {x}, {y}", f)
    g.done()
    for t in ALL:
        g, c, a, b = Graph(f"select {t}", "exact"), some("bool", (5, 3)), some(t, (5, 3)), some(t, (5, 3))
        g.row("select", f"select {g.constant(c)}, {g.constant(a)}, {g.constant(b)}", np.where(c, a, b).astype(ALL[t]))
        g.done()


# ---- combining ----
def reduced(op, a, t, axes):
    keep = [k for k in range(a.ndim) if k not in axes]
    shape = [a.shape[k] for k in keep]
    lines = a.transpose(keep + list(axes)).reshape(shape + [-1] if 0 not in a.shape else shape + [int(np.prod([a.shape[k] for k in axes]))])
    if t in FLOATS:
        x = lines.astype(F64)
        f = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}[op]
        initial = {"max": -math.inf, "min": math.inf}.get(op)
        return to(f(x, axis=-1) if initial is None else f(x, axis=-1, initial=initial), t)
    out = np.empty(shape, dtype=object)
    low, high = (0, 1) if t == "bool" else (-(1 << (bits(t) - 1)), (1 << (bits(t) - 1)) - 1) if t[0] == "i" else (0, (1 << bits(t)) - 1)
    for i in np.ndindex(*shape):
        line = [int(x) for x in lines[i]]
        out[i] = {"sum": sum(line), "prod": math.prod(line), "max": max(line, default=low), "min": min(line, default=high)}[op]
    return to(out, t)


def reduce():
    cases = [((2, 5, 7), [(0,), (2,), (0, 2), (0, 1, 2)]), ((13,), [(0,)]), ((3, 0, 5), [(1,), (0,), (1, 2)]), ((1, 11), [(0,), (1,)])]
    for t, (shape, sets) in itertools.product(ALL, cases):
        g = Graph(f"reduce {t} {shape}", "close" if t in FLOATS else "exact")
        a, b = some(t, shape, special=False), some(t, shape)
        v, w = g.constant(a), g.constant(b)
        for axes in sets:
            listed = ", ".join(map(str, axes))
            for op in ("max", "min") if t == "bool" else ("sum", "prod", "max", "min"):
                if op in ("max", "min"):
                    g.row(f"{op} {axes}", f"reduce_{op} {w} list [{listed}]", reduced(op, b, t, axes))
                elif op == "sum" or t not in FLOATS or len(axes) == 1:
                    g.row(f"{op} {axes}", f"reduce_{op} {v} list [{listed}]", reduced(op, a, t, axes))
        g.done()


def dot():
    cases = [((5, 7), (11, 7), 0, 1), ((2, 5, 7), (2, 3, 7), 1, 1), ((2, 3, 13), (2, 3, 5, 13), 2, 1), ((5, 3, 2), (7, 3, 2), 0, 2), ((5,), (7,), 0, 0),
             ((5, 0), (3, 0), 0, 1), ((0, 4), (3, 4), 0, 1), ((2, 4), (2, 4), 1, 1), ((7,), (7,), 0, 1), ((1, 1), (1, 1), 0, 1), ((2, 3), (2, 5), 1, 0)]
    for t, (ls, rs, nb, nc) in itertools.product({**FLOATS, **INTS}, cases):
        if t not in ("f32", "i64", "u8") and (nb, nc) == (0, 1) and ls != (5, 7):
            continue
        g, l, r = Graph(f"dot {t} {ls} {rs}", "close" if t in FLOATS else "exact"), some(t, ls, special=t in INTS), some(t, rs, special=False)
        m, n = len(ls) - nb - nc, len(rs) - nb - nc
        letters = "abcdefghijklm"
        b, k, p, q = letters[:nb], letters[4:4 + nc], "mno"[:m], "xyz"[:n]
        spec = f"{b}{p}{k},{b}{q}{k}->{b}{p}{q}"
        if t in FLOATS:
            wanted = to(np.einsum(spec, l.astype(F64), r.astype(F64)), t)
        else:
            wanted = to(np.einsum(spec, ints(l).astype(np.uint64) if t == "u64" else ints(l).astype(np.int64), ints(r).astype(np.uint64 if t == "u64" else np.int64)), t)
        g.row("dot", f"dot {g.constant(l)}, {g.constant(r)} batch {nb} contract {nc}", wanted)
        g.done()


def scan():
    for t in {**FLOATS, **INTS}:
        g, a = Graph(f"cumsum {t}", "close" if t in FLOATS else "exact"), some(t, (3, 5, 2), special=t in INTS)
        v = g.constant(a)
        for axis, mode in itertools.product(range(3), range(4)):
            x = np.moveaxis(a.astype(F64) if t in FLOATS else ints(a), axis, 0)
            x = x[::-1] if mode & 2 else x
            s = np.cumsum(x, axis=0)
            s = s - x if mode & 1 else s
            s = s[::-1] if mode & 2 else s
            if axis == 1 or mode == 0:
                g.row(f"axis {axis} mode {mode}", f"cumsum {v} axis {axis} mode {mode}", to(np.moveaxis(s, 0, axis), t))
        e = g.constant(some(t, (3, 0)))
        g.row("empty", f"cumsum {e} axis 1", some(t, (3, 0)))
        g.done()
    for t in ALL:
        g, a = Graph(f"topk {t}", "exact"), some(t, (2, 13, 3))
        a[:, 4] = a[:, 9]  # ties
        v = g.constant(a)
        for axis, mode, k in ((1, 0, 1), (1, 0, 5), (1, 1, 13), (2, 0, 2), (0, 1, 2), (1, 0, 0)):
            x = np.moveaxis(a, axis, -1)
            out = np.empty(x.shape[:-1] + (k,), dtype=np.int64)
            for i in np.ndindex(*x.shape[:-1]):
                line = [(math.isnan(float(y)) if t in FLOATS else False, 0 if t in FLOATS and math.isnan(float(y)) else (float(y) if t in FLOATS else int(y))) for y in x[i]]
                order = sorted(range(len(line)), key=lambda j: line[j]) if mode else sorted(range(len(line)), key=lambda j: (not line[j][0], -line[j][1]))
                out[i] = order[:k]
            g.row(f"axis {axis} mode {mode} k {k}", f"topk {v} axis {axis} mode {mode}", np.moveaxis(out, -1, axis))
        g.done()


# ---- indices ----
def gather_of(a, idx, axis, nb, base=None):
    outer, inner = a.shape[nb:axis], a.shape[axis + 1:]
    out = np.zeros(a.shape[:axis] + idx.shape[nb:] + inner, dtype=a.dtype)
    for b in np.ndindex(*a.shape[:nb]):
        for o in np.ndindex(*outer):
            for i in np.ndindex(*idx.shape[nb:]):
                at = int(idx[b + i]) - (base or 0)
                if base is None or 0 <= at < a.shape[axis]:
                    out[b + o + i] = a[b + o + (at,)]
    return out


def indices():
    cases = [((7, 5), (3,), 0, 0), ((7, 5), (2, 3), 1, 0), ((5,), (), 0, 0), ((2, 3, 7), (2, 5), 2, 1), ((2, 3, 7, 2), (2, 3, 4), 2, 2), ((2, 3, 7, 2), (2, 4), 2, 1),
             ((7, 0), (3,), 0, 0), ((7, 5), (0,), 0, 0), ((2, 11), (2,), 1, 1), ((0, 3, 5), (0, 2), 1, 1)]
    kinds = ["i64", "i32", "u8", "i8", "u64"]
    for t, (n, (shape, ishape, axis, nb)) in itertools.product(ALL, enumerate(cases)):
        if t not in ("f32", "bool", "i64") and n not in (1, 5):
            continue
        g, a = Graph(f"gather {t} {shape} by {ishape}", "exact"), some(t, shape)
        it = kinds[n % len(kinds)]
        idx = to(random.integers(0, shape[axis], ishape), it)
        v = g.constant(a)
        g.row("check", f"gather {v}, {g.constant(idx)} axis {axis} batch {nb}", gather_of(a, idx, axis, nb))
        far = to(random.integers(-3 if it[0] == "i" else 0, shape[axis] + 9, ishape), it)
        w = g.constant(far)
        for base in (0, 4):
            g.row(f"zero {base}", f"gather {v}, {w} axis {axis} batch {nb} mode 1 dims [{base}]", gather_of(a, far, axis, nb, base))
        g.done()
        scatter(t, shape, ishape, axis, nb, it)


def scatter(t, shape, ishape, axis, nb, it):
    g, a = Graph(f"scatter {t} {shape} by {ishape}", "close" if t in FLOATS else "exact"), some(t, shape, special=False)
    u = some(t, shape[:axis] + ishape[nb:] + shape[axis + 1:], special=False)
    v, w = g.constant(a), g.constant(u)
    for mode, drop in itertools.product(range(5), (False, True)):
        if t == "bool" and mode in (1, 2):
            continue
        base = 2 if drop else 0
        idx = to(random.integers(0, shape[axis] + (5 if drop else 0), ishape), it)
        out = a.astype(F64) if t in FLOATS else ints(a)
        new = u.astype(F64) if t in FLOATS else ints(u)
        f = [lambda x, y: y, lambda x, y: x + y, lambda x, y: x * y, max, min][mode]
        for b in np.ndindex(*shape[:nb]):
            for o in np.ndindex(*shape[nb:axis]):
                for i in np.ndindex(*ishape[nb:]):
                    at = int(idx[b + i]) - base
                    if not 0 <= at < shape[axis]:
                        continue
                    for k in np.ndindex(*shape[axis + 1:]):
                        out[b + o + (at,) + k] = f(out[b + o + (at,) + k], new[b + o + i + k])
        extra = f"mode {mode + 8} dims [{base}]" if drop else f"mode {mode}"
        g.row(extra, f"scatter {v}, {g.constant(idx)}, {w} axis {axis} batch {nb} {extra}", to(out, t))
    g.done()


def cross_entropy():
    for t, shape in itertools.product(FLOATS, [(5, 11), (2, 3, 7), (13,), (0, 4), (1, 1)]):
        g, x = Graph(f"cross_entropy {t} {shape}", "close"), some(t, shape, special=False)
        labels = random.integers(-2, shape[-1] + 2, shape[:-1])
        y = x.astype(F64)
        inside = (labels >= 0) & (labels < shape[-1])
        picked = np.where(inside, np.take_along_axis(y, np.where(inside, labels, 0)[..., None], -1)[..., 0], 0)
        wanted = np.log(np.exp(y).sum(-1)) - picked
        g.row("loss", f"cross_entropy {g.constant(x)}, {g.constant(to(labels, 'i32'))}", to(wanted, t))
        g.done()


# ---- layout ----
def starts(*values):
    return ", ".join(map(str, values))


def layout():
    for t in ALL:
        g = Graph(f"layout {t}", "exact")
        a, s = some(t, (2, 5, 7)), some(t, ())
        v = g.constant(a)
        g.row("reshape", f"reshape {v}", a.reshape(7, 10))
        g.row("transpose", f"transpose {v} list [2, 0, 1]", a.transpose(2, 0, 1))
        b = some(t, (5, 1))
        g.row("broadcast", f"broadcast {g.constant(b)} list [1, 2]", np.broadcast_to(b[None], (3, 5, 11)).copy())
        g.row("broadcast scalar", f"broadcast {g.constant(s)}", np.broadcast_to(s, (3, 2)).copy())
        g.row("broadcast empty", f"broadcast {g.constant(some(t, (1,)))} list [0]", np.zeros((0, 2), dtype=ALL[t]))
        g.row("slice", f"slice {v} list [1, 2, 3] dims [1, 0, 1]", a[1:2, 0:5:2, 1:7:3].copy())
        g.row("slice empty", f"slice {v} list [1, 1, 1] dims [2, 5, 0]", a[2:, 5:, :].copy())
        c = some(t, (2, 0, 7))
        d = some(t, (2, 3, 7))
        g.row("concat", f"concat {v}, {g.constant(c)}, {g.constant(d)} axis 1", np.concatenate([a, c, d], 1))
        g.row("concat last", f"concat {v}, {v} axis 2", np.concatenate([a, a], 2))
        padded = np.full((2, 9, 8), s, dtype=ALL[t])
        padded[:, 3:8, 0:7] = a
        g.row("pad", f"pad {v}, {g.constant(s)} dims [0, 3, 0]", padded)
        g.row("pad empty", f"pad {g.constant(c)}, {g.constant(s)} dims [0, 1, 0]", np.full((2, 2, 7), s, dtype=ALL[t]))
        g.row("reverse", f"reverse {v} list [0, 2]", a[::-1, :, ::-1].copy())
        g.row("reverse empty", f"reverse {g.constant(c)} list [1, 2]", c)
        for k, stride, dilation in ((3, 1, 1), (2, 2, 3), (1, 3, 1), (8, 1, 1)):
            places = max(0, (7 - ((k - 1) * dilation + 1)) // stride + 1)
            w = np.zeros((2, 5, places, k), dtype=ALL[t])
            for o, i in itertools.product(range(places), range(k)):
                w[:, :, o, i] = a[:, :, o * stride + i * dilation]
            g.row(f"window {k}", f"window {v} axis 2 list [{k}, {stride}, {dilation}]", w)
        if t != "bool":
            g.row("iota", "iota axis 1", to(np.broadcast_to(np.arange(7)[None, :, None], (3, 7, 2)), t))
            g.row("iota empty", "iota axis 0", to(np.zeros((0, 2)), t))
        g.done()


# ---- types of few bits ----
FEW_FLOATS = {"f8e4m3fn": ml_dtypes.float8_e4m3fn, "f8e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "f8e5m2": ml_dtypes.float8_e5m2,
              "f8e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "f4e2m1": ml_dtypes.float4_e2m1fn}
FEW_INTS = {"u4": ml_dtypes.uint4, "i4": ml_dtypes.int4, "u2": ml_dtypes.uint2, "i2": ml_dtypes.int2}


def few_constant(g, t, a):
    """Elements as they lie in memory: a byte each, integers with their sign."""
    data = a.astype(np.int8 if t[0] == "i" else np.uint8) if t in FEW_INTS else a.view(np.uint8)
    return g.add(f'constant data x"{data.tobytes().hex()}"', t, a.shape)


def few():
    hard = [0.0, -0.0, math.inf, -math.inf, math.nan, 464.0, 465.0, 480.0, -1e9, 6e4, 61440.0, 61439.0, 240.0, 247.0, 248.0, 5.0, 0.25, 0.75,
            2.5, 1e-7, 2.0**-10, 1.5 * 2.0**-10, 2.0**-17, 1.1 * 2.0**-17, 3 * 2.0**-18]
    for t, kind in FEW_FLOATS.items():
        codes = np.arange(16 if t == "f4e2m1" else 256, dtype=np.uint8)
        g = Graph(f"few {t}", "exact")
        v = few_constant(g, t, codes.view(kind))
        for wide in FLOATS:
            g.row(f"to {wide}", f"cast {v}", codes.view(kind).astype(np.float32).astype(FLOATS[wide]))
        for source in ("f32", "f64", "bf16"):
            x = np.concatenate([np.array(hard), random.uniform(-9, 9, 60), random.uniform(-1e3, 1e3, 60) ** 2, random.uniform(-1, 1, 60) ** 9])
            x = x.astype(np.float32).astype(FLOATS[source])
            if t == "f4e2m1":
                x[4] = 0  # what NaN gives is ours to say
            y = g.add(f"cast {g.constant(x)}", t, x.shape)
            g.expect(f"from {source}", y, few_constant(g, t, x.astype(np.float32).astype(kind)))
        whole = np.array([0, 1, -1, 3, 7, 100, -100], dtype=np.int32)
        g.expect("from i32", g.add(f"cast {g.constant(whole)}", t, whole.shape), few_constant(g, t, whole.astype(np.float32).astype(kind)))
        if t != "f4e2m1":
            kept = codes[~np.isnan(codes.view(kind).astype(np.float32)) | (codes & 3 == 2) | (t[-2:] != "m2")]  # of NaNs the quiet ones
            g.row("bits", f"bitcast {few_constant(g, t, kept.view(kind))}", kept)
            g.expect("of bits", g.add(f"bitcast {g.constant(codes)}", t, codes.shape), few_constant(g, t, codes.view(kind)))
        g.expect("reverse", g.add(f"reverse {v} list [0]", t, codes.shape), few_constant(g, t, codes.view(kind)[::-1].copy()))
        g.done()
    for t, kind in FEW_INTS.items():
        low, high = int(ml_dtypes.iinfo(kind).min), int(ml_dtypes.iinfo(kind).max)
        a = np.arange(low, high + 1).astype(np.int8)
        g = Graph(f"few {t}", "exact")
        v = few_constant(g, t, a.astype(kind))
        for wide in ALL:
            if wide != "bool":
                g.row(f"to {wide}", f"cast {v}", to(a.astype(F64) if wide in FLOATS else [int(x) for x in a], wide))
        x = np.arange(-40, 40).astype(np.int16)
        g.expect("from i16", g.add(f"cast {g.constant(x)}", t, x.shape), few_constant(g, t, x.astype(kind)))
        y = np.array([-9.5, -2.5, -1.5, -0.5, 0, 0.9, 1.9, 3.5, 7.9, 99, math.inf, -math.inf, math.nan], dtype=np.float32)
        whole = np.clip(np.trunc(np.nan_to_num(y, nan=0, posinf=99, neginf=-99)), low, high).astype(np.int8)
        g.expect("from f32", g.add(f"cast {g.constant(y)}", t, y.shape), few_constant(g, t, whole.astype(kind)))
        other = ("i" if t[0] == "u" else "u") + t[1]
        turned = [int(i) % (1 << int(t[1])) for i in a]
        turned = [i - (1 << int(t[1])) if other[0] == "i" and i >> (int(t[1]) - 1) else i for i in turned]
        g.expect("bits", g.add(f"bitcast {v}", other, a.shape), few_constant(g, other, np.array(turned, dtype=np.int8).astype(FEW_INTS[other])))
        g.done()
    for t, same in (("f32", "u32"), ("f64", "i64"), ("f16", "i16"), ("bf16", "u16"), ("i8", "u8"), ("i32", "f32"), ("u64", "f64"), ("u16", "bf16")):
        g, a = Graph(f"bitcast {t}", "exact"), some(t, (13,))
        g.row(same, f"bitcast {g.constant(a)}", a.view(ALL[same]))
        g.done()


for part in (unary, casts, binary, reduce, dot, scan, indices, cross_entropy, layout, few):
    part()
