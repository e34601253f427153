#!/usr/bin/env python3
"""Makes the test folders of ONNX Runtime's own operators (domain com.microsoft): one node or a few each, in ONNX test layout

    NAME/model.onnx, NAME/test_data_set_N/{input,output}_K.pb

with outputs by ONNX Runtime on the CPU, without its graph optimisations. Nobody needs this to build or to test: the folders are committed.

    python tests/contrib/make.py [PATTERN...]      # default: all

PyPI, as tested with Python 3.11: onnx==1.23.2 onnxruntime==1.31.1 numpy==2.3.5
Start reading at `case`; the cases follow by operator.
"""
import fnmatch
import os
import pathlib
import shutil
import sys
import zlib

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
F32, F16, I32, I64, U8, I8 = np.float32, np.float16, np.int32, np.int64, np.uint8, np.int8
CASES = {}


def tensor_type(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def model_of(name, op, domain, attributes, given, wanted, constants, symbols, before, opset):
    """A model of one node (and those before it) with inputs as `given`; its outputs have no types yet."""
    node_inputs = [x if isinstance(x, str) else "" if x is None else x[0] for x in given
                   if isinstance(x, str) or x is None or not x[0].startswith("_")]
    node = helper.make_node(op, node_inputs, [y or "" for y in wanted], name=name, domain=domain, **(attributes or {}))
    inputs, initializers = [], []
    for n, a in arrays(given):
        if n in constants:
            initializers.append(numpy_helper.from_array(a, n))
            continue
        shape = [s if s is not None else e for s, e in zip((symbols or {}).get(n, [None] * a.ndim), a.shape)]
        inputs.append(helper.make_tensor_value_info(n, tensor_type(a), shape))
    graph = helper.make_graph(list(before) + [node], name, inputs, [onnx.ValueInfoProto(name=y) for y in wanted if y], initializers)
    return helper.make_model(graph, ir_version=10, producer_name="tests/contrib/make.py",
                             opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])


def arrays(given):
    return [x for x in given if x is not None and not isinstance(x, str)]


def write(name, model, sets, names, results):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    for number, (inputs, outputs) in enumerate(zip(sets, results)):
        at = folder / f"test_data_set_{number}"
        at.mkdir()
        for y in outputs:
            if y.dtype.kind == "f" and not np.isfinite(y.astype(np.float64)).all():
                raise ValueError("ONNX Runtime gives numbers that are not finite")
        for kind, named in (("input", inputs), ("output", list(zip(names, outputs)))):
            for k, (tensor_name, array) in enumerate(named):
                (at / f"{kind}_{k}.pb").write_bytes(numpy_helper.from_array(np.asarray(array), tensor_name).SerializeToString())


def case(name, op, make, attributes=None, outputs=1, constants=(), symbols=None, sets=1, domain="com.microsoft", before=(), opset=21,
         instead=None):
    """`make(rng, number)` gives the node's inputs of data set `number`: a list of (name, array) with None for what is absent. Names in
    `constants` become initializers (of set 0); `symbols` maps an input to the names of its axes (None: a number as it is). `outputs`: how
    many, or a list with None for those left out. `before`: nodes in front, which take other inputs of `make` (those whose
    name starts with '_') and give node inputs that are listed as a plain string. `instead`: where ONNX Runtime does not take the form on a CPU,
    a function of a set's inputs to (operator, attributes, inputs, nodes in front..) that mean the same."""
    def build():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        given = [make(rng, number) for number in range(sets)]
        wanted = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
        names = [y for y in wanted if y]
        model = model_of(name, op, domain, attributes, given[0], wanted, constants, symbols, before, opset)
        feeds = [[x for x in arrays(s) if x[0] not in constants] for s in given]
        if instead:
            o, a, x, *front = instead(given[0])
            other = model_of(name, o, "" if front else domain, a, x, wanted, (), None, front or before, opset)
            results = [session_of(other).run(names, dict(arrays(x)))]
        else:
            session = session_of(model)
            results = [session.run(names, dict(f)) for f in feeds]
        del model.graph.output[:]
        model.graph.output.extend(
            helper.make_tensor_value_info(y, tensor_type(r), [None if symbols else e for e in r.shape]) for y, r in zip(names, results[0]))
        write(name, model, feeds, names, results)
    assert name not in CASES, name
    CASES[name] = build


def normal(rng, *shape, dtype=F32, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(dtype)


# ---- activations ---------------------------------------------------------------------------------------------------------

def activations():
    case("gelu", "Gelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3))])
    case("biasgelu", "BiasGelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3)), ("b", normal(r, 7))], constants=["b"])
    case("biasgelu_symbols", "BiasGelu", lambda r, n: [("x", normal(r, 2 + n, 5 - n, 7)), ("b", normal(r, 7) if n == 0 else np.zeros(7, F32))],
         constants=["b"], symbols={"x": ["batch", "sequence", None]}, sets=2)
    case("fastgelu", "FastGelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3))])
    case("fastgelu_bias", "FastGelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3)), ("b", normal(r, 7))], constants=["b"])
    case("quickgelu", "QuickGelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3))])
    split = [helper.make_node("Add", ["_x", "_b"], ["sum"]), helper.make_node("Split", ["sum"], ["left", "right"], axis=-1, num_outputs=2),
             helper.make_node("Gelu", ["right"], ["gelu"])]
    case("biassplitgelu", "BiasSplitGelu", lambda r, n: [("x", normal(r, 2, 5, 14, scale=2)), ("b", normal(r, 14))], constants=["b"],
         instead=lambda x: ("Mul", {}, [("_x", x[0][1]), ("_b", x[1][1]), "left", "gelu"], *split))
    case("quickgelu_silu", "QuickGelu", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3))], {"alpha": 1.0})


# ---- norms ---------------------------------------------------------------------------------------------------------------

def norms():
    def skip(shape, skip_shape, *more):
        def make(r, n):
            h = shape[-1]
            named = {"beta": ("beta", normal(r, h)), "bias": ("bias", normal(r, h)), None: None}
            return [("x", normal(r, *shape)), ("skip", normal(r, *skip_shape)), ("gamma", 1 + normal(r, h, scale=0.2))] + \
                [named[m] for m in more]
        return make

    constants = ["gamma", "beta", "bias"]
    case("skiplayernorm", "SkipLayerNormalization", skip((2, 5, 11), (2, 5, 11), "beta"), {"epsilon": 1e-5}, constants=constants)
    case("skiplayernorm_plain", "SkipLayerNormalization", skip((2, 5, 11), (2, 5, 11)), constants=constants)
    case("skiplayernorm_bias_sum", "SkipLayerNormalization", skip((2, 5, 11), (2, 5, 11), "beta", "bias"), {"epsilon": 1e-3},
         outputs=["y", None, None, "sum"], constants=constants)
    case("skiplayernorm_no_beta_bias", "SkipLayerNormalization", skip((2, 5, 11), (2, 5, 11), None, "bias"),
         outputs=["y", None, None, "sum"], constants=constants)
    case("skiplayernorm_broadcast_one", "SkipLayerNormalization", skip((3, 5, 11), (1, 5, 11), "beta"), constants=constants)
    case("skiplayernorm_broadcast_two", "SkipLayerNormalization", skip((3, 5, 11), (5, 11), "beta"),
         outputs=["y", None, None, "sum"], constants=constants)
    case("skiplayernorm_2d", "SkipLayerNormalization", skip((7, 13), (7, 13), "beta"), constants=constants)
    simple = "SkipSimplifiedLayerNormalization"
    case("skiprmsnorm", simple, skip((2, 5, 11), (2, 5, 11)), {"epsilon": 1e-6}, constants=constants)
    case("skiprmsnorm_sum", simple, skip((2, 5, 11), (2, 5, 11)), {"epsilon": 1e-6}, outputs=["y", None, None, "sum"], constants=constants)
    case("skiprmsnorm_bias", simple, skip((7, 13), (7, 13), "bias"), {"epsilon": 1e-2}, outputs=["y", None, None, "sum"], constants=constants)
    for domain, tag in (("", ""), ):
        rms = "SimplifiedLayerNormalization"
        case("rmsnorm" + tag, rms, lambda r, n: [("x", normal(r, 2, 5, 11)), ("scale", 1 + normal(r, 11, scale=0.2))],
             {"epsilon": 1e-5, "axis": -1, "stash_type": 1}, constants=["scale"], domain=domain)
        case("rmsnorm_axis" + tag, rms, lambda r, n: [("x", normal(r, 2, 5, 11)), ("scale", normal(r, 5, 11))],
             {"epsilon": 1e-3, "axis": 1}, constants=["scale"], domain=domain)
        case("rmsnorm_f16" + tag, rms, lambda r, n: [("x", normal(r, 2, 5, 11, dtype=F16)), ("scale", normal(r, 11, dtype=F16))],
             {"epsilon": 1e-5}, constants=["scale"], domain=domain)
        case("rmsnorm_inverse" + tag, rms, lambda r, n: [("x", normal(r, 2, 5, 11)), ("scale", normal(r, 11))],
             {"epsilon": 1e-5}, outputs=2, constants=["scale"], domain=domain)

    def embed(segment, mask, positions):
        def make(r, n):
            b, s, h = 2, 5, 11
            m = np.ones((b, s), I32)
            m[1, 3:] = 0
            p = np.stack([r.permutation(9)[:s] for _ in range(b)]).astype(I32)
            return [("ids", r.integers(0, 17, (b, s)).astype(I32)), ("segments", r.integers(0, 2, (b, s)).astype(I32)) if segment else None,
                    ("word", normal(r, 17, h)), ("position", normal(r, 9, h)), ("segment", normal(r, 2, h)) if segment else None,
                    ("gamma", normal(r, h)), ("beta", normal(r, h)), ("mask", m) if mask else None] + \
                ([("positions", p)] if positions else [])
        return make
    weights = ["word", "position", "segment", "gamma", "beta"]
    case("embedlayernorm", "EmbedLayerNormalization", embed(True, True, False), {"epsilon": 1e-5}, outputs=2, constants=weights)
    case("embedlayernorm_no_segment", "EmbedLayerNormalization", embed(False, False, False), outputs=["y", None, "sum"], constants=weights)
    case("embedlayernorm_positions", "EmbedLayerNormalization", embed(True, False, True), outputs=["y", "index", "sum"], constants=weights)


# ---- products ------------------------------------------------------------------------------------------------------------

def products():
    def two(a, b):
        return lambda r, n: [("a", normal(r, *a)), ("b", normal(r, *b))]
    case("fusedmatmul", "FusedMatMul", two((2, 3, 5, 7), (2, 3, 7, 4)), {"alpha": 0.25})
    case("fusedmatmul_transposed", "FusedMatMul", two((2, 3, 7, 5), (2, 3, 4, 7)), {"alpha": -1.5, "transA": 1, "transB": 1})
    case("fusedmatmul_weight", "FusedMatMul", two((3, 5, 7), (4, 7)), {"transB": 1}, constants=["b"])
    case("fusedmatmul_batch_a", "FusedMatMul", two((5, 2, 3, 7), (2, 3, 7, 4)), {"transBatchA": 1})
    case("fusedmatmul_batch_b", "FusedMatMul", two((2, 3, 5, 7), (7, 2, 3, 4)), {"transBatchB": 1})
    case("fusedmatmul_batch_both", "FusedMatMul", two((7, 2, 3, 5), (4, 2, 3, 7)), {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1})
    gemm = lambda r, n: [("a", normal(r, 5, 7)), ("b", normal(r, 11, 7)), ("c", normal(r, 11))]
    case("fusedgemm_relu", "FusedGemm", gemm, {"transB": 1, "activation": "Relu"}, constants=["b", "c"])
    case("fusedgemm_leaky", "FusedGemm", gemm, {"transB": 1, "alpha": 0.5, "beta": 2.0, "activation": "LeakyRelu", "activation_alpha": 0.3},
         constants=["b", "c"])
    case("fusedgemm_tanh", "FusedGemm", gemm, {"transB": 1, "activation": "Tanh"}, constants=["b", "c"])
    case("fusedgemm_sigmoid", "FusedGemm", gemm, {"transB": 1, "activation": "Sigmoid"}, constants=["b", "c"])
    conv = lambda r, n: [("x", normal(r, 2, 3, 7, 5)), ("w", normal(r, 4, 3, 3, 3)), ("b", normal(r, 4))]
    case("fusedconv_relu", "FusedConv", conv, {"pads": [1, 1, 1, 1], "activation": "Relu"}, constants=["w", "b"])
    case("fusedconv_sum", "FusedConv", lambda r, n: conv(r, n) + [("z", normal(r, 2, 4, 7, 5))],
         {"pads": [1, 1, 1, 1], "activation": "Relu"}, constants=["w", "b"])

    def dynamic(dtype, per_column, zero, bias):
        def make(r, n):
            low, high = (0, 256) if dtype == U8 else (-128, 128)
            k, columns = 7, 11
            shape = (columns,) if per_column else ()
            z = r.integers(low + 100, high - 100, shape).astype(dtype)
            more = [("zero", z) if zero else None] + ([("bias", normal(r, columns))] if bias else [])
            return [("a", normal(r, 2, 5, k)), ("b", r.integers(low, high, (k, columns)).astype(dtype)),
                    ("scale", np.asarray(r.uniform(0.01, 0.05, shape), F32))] + more
        return make
    q = ["b", "scale", "zero", "bias"]
    case("dynamicquantizematmul_u8", "DynamicQuantizeMatMul", dynamic(U8, False, True, False), constants=q)
    case("dynamicquantizematmul_i8_bias", "DynamicQuantizeMatMul", dynamic(I8, False, False, True), constants=q)
    case("dynamicquantizematmul_columns", "DynamicQuantizeMatMul", dynamic(I8, True, True, True), constants=q)

    def integers(per_column, zeros):
        def make(r, n):
            shape = (11,) if per_column else ()
            return [("a", r.integers(0, 256, (2, 5, 7)).astype(U8)), ("b", r.integers(-128, 128, (7, 11)).astype(I8)),
                    ("sa", np.asarray(0.02, F32)), ("sb", np.asarray(r.uniform(0.01, 0.05, shape), F32)),
                    ("za", np.asarray(120, U8)) if zeros else None, ("zb", np.asarray(r.integers(-9, 9, shape), I8)) if zeros else None,
                    ("bias", normal(r, 11))]
        return make
    case("matmulintegertofloat", "MatMulIntegerToFloat", integers(False, True), constants=["b", "sb", "zb", "bias"])
    case("matmulintegertofloat_columns", "MatMulIntegerToFloat", integers(True, True), constants=["b", "sb", "zb", "bias"])
    case("matmulintegertofloat_no_zero", "MatMulIntegerToFloat", integers(True, False), constants=["b", "sb", "bias"])

    case("quantizelinear_u8", "QuantizeLinear", lambda r, n: [("x", normal(r, 3, 5, 7, scale=3)), ("s", np.asarray(0.03, F32)),
                                                              ("z", np.asarray(120, U8))], constants=["s", "z"])
    case("quantizelinear_i8_axis", "QuantizeLinear", lambda r, n: [("x", normal(r, 3, 5, 7)), ("s", r.uniform(0.01, 0.05, 5).astype(F32)),
                                                                   ("z", r.integers(-9, 9, 5).astype(I8))], {"axis": 1}, constants=["s", "z"])
    case("quantizelinear_u16", "QuantizeLinear", lambda r, n: [("x", normal(r, 3, 5)), ("s", np.asarray(0.003, F32)),
                                                               ("z", np.asarray(30000, np.uint16))], constants=["s", "z"])
    case("dequantizelinear_u8", "DequantizeLinear", lambda r, n: [("x", r.integers(0, 256, (3, 5)).astype(U8)), ("s", np.asarray(0.03, F32)),
                                                                  ("z", np.asarray(120, U8))], constants=["s", "z"])
    case("dequantizelinear_i8_axis", "DequantizeLinear",
         lambda r, n: [("x", r.integers(-128, 128, (3, 5, 7)).astype(I8)), ("s", r.uniform(0.01, 0.05, 3).astype(F32)),
                       ("z", r.integers(-9, 9, 3).astype(I8))], {"axis": 0}, constants=["s", "z"])


# ---- weights of a few bits -----------------------------------------------------------------------------------------------

def pack(numbers, bits):
    """[.., n] numbers below 2^bits into bytes, low bits first; the last byte may be short."""
    per = 8 // bits
    extra = -numbers.shape[-1] % per
    padded = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, extra)]).astype(np.uint16)
    parts = padded.reshape(*padded.shape[:-1], -1, per)
    return sum(parts[..., i] << (bits * i) for i in range(per)).astype(U8)


def few_bits():
    def matmul(n, k, block, bits, zero=None, bias=False, dtype=F32, rows=(2, 3)):
        blocks = -(-k // block)

        def make(r, number):
            w = r.integers(0, 2 ** bits, (n, blocks, block))
            z = r.integers(0, 2 ** bits, (n, blocks))
            zeros = {None: None, "packed": ("z", pack(z, bits)), "plain": ("z", (z + r.uniform(-0.5, 0.5, z.shape)).astype(dtype))}[zero]
            return [("a", normal(r, *rows, k, dtype=dtype)), ("b", pack(w, bits)),
                    ("s", r.uniform(0.01, 0.1, (n, blocks)).astype(dtype)), zeros, None] + ([("bias", normal(r, n, dtype=dtype))] if bias else [])
        return make

    def add(tag, n, k, block, bits, more=None, **forms):
        case("matmulnbits_" + tag, "MatMulNBits", matmul(n, k, block, bits, **forms),
             {"N": n, "K": k, "block_size": block, "bits": bits, **(more or {})}, constants=["b", "s", "z", "bias"])
    add("4", 11, 64, 32, 4)
    add("4_zero", 13, 96, 32, 4, zero="packed")          # three blocks: a byte and a half of zero points
    add("4_zero_plain", 13, 96, 32, 4, zero="plain")
    add("4_bias", 11, 64, 16, 4, bias=True)
    add("4_short", 11, 83, 32, 4)                         # the last block is short
    add("4_short_zero", 11, 83, 32, 4, zero="packed", bias=True)
    add("4_one_short", 7, 19, 32, 4, zero="packed")       # only a short block
    add("4_128", 5, 256, 128, 4, zero="packed")
    add("4_level", 11, 64, 32, 4, more={"accuracy_level": 1})
    add("4_vector", 11, 64, 32, 4, rows=(1,))
    add("8", 11, 64, 32, 8)
    add("8_zero", 13, 96, 32, 8, zero="packed")
    add("8_short", 11, 83, 32, 8, zero="packed")
    add("2", 11, 64, 32, 2)
    add("2_zero", 13, 96, 32, 2, zero="packed")
    case("matmulnbits_symbols", "MatMulNBits", lambda r, n: matmul(11, 64, 32, 4)(r, n)[:1] and [
        ("a", normal(r, 1 + n, 3 + n, 64)), *matmul(11, 64, 32, 4)(np.random.default_rng(5), 0)[1:]],
        {"N": 11, "K": 64, "block_size": 32, "bits": 4}, constants=["b", "s"], symbols={"a": ["batch", "sequence", None]}, sets=2)

    def gather(rows, columns, block, bits, zero, shape):
        def make(r, number):
            w, blocks = r.integers(0, 2 ** bits, (rows, columns)), -(-columns // block)
            z = r.integers(0, 2 ** bits, (rows, blocks))
            i = r.integers(-rows, rows, shape).astype(I64)
            return [("data", pack(w, bits)), ("i", i), ("s", r.uniform(0.01, 0.1, (rows, blocks)).astype(F32))] + \
                ([("z", pack(z, bits))] if zero else [])
        return make

    def add_gather(tag, rows, columns, block, bits, zero=False, shape=(2, 3)):
        case("gatherblockquantized_" + tag, "GatherBlockQuantized", gather(rows, columns, block, bits, zero, shape),
             {"block_size": block, "bits": bits, "gather_axis": 0, "quantize_axis": 1}, constants=["data", "s", "z"])
    add_gather("4", 13, 64, 32, 4)
    add_gather("4_zero", 13, 64, 32, 4, zero=True)
    add_gather("4_short", 13, 86, 32, 4, zero=True)
    add_gather("8", 13, 64, 16, 8)
    add_gather("8_zero", 13, 70, 32, 8, zero=True, shape=(5,))


def typed_few_bits():
    """Weights whose element type has few bits, packed across rows where those do not fill bytes."""
    def elements(kind, rows, columns, block, zero):
        low, high = int(ml_dtypes.iinfo(kind).min), int(ml_dtypes.iinfo(kind).max) + 1

        def make(r, number):
            blocks = -(-columns // block)
            return [("data", r.integers(low, high, (rows, columns)).astype(kind)), ("i", r.integers(-rows, rows, (2, 3)).astype(I64)),
                    ("s", r.uniform(0.01, 0.1, (rows, blocks)).astype(F32))] + \
                ([("z", r.integers(low, high, (rows, blocks)).astype(kind))] if zero else [])
        return make
    for tag, kind, columns, zero in (("i4", ml_dtypes.int4, 64, False), ("i4_odd", ml_dtypes.int4, 45, True),
                                     ("u4_zero", ml_dtypes.uint4, 96, True)):
        case("gatherblockquantized_" + tag, "GatherBlockQuantized", elements(kind, 13, columns, 16, zero),
             {"block_size": 16, "gather_axis": 0, "quantize_axis": 1}, constants=["data", "s", "z"])

    def linear(kind, k, n, block, zero, columns=False):
        low, high = int(ml_dtypes.iinfo(kind).min), int(ml_dtypes.iinfo(kind).max) + 1
        shape = (n,) if columns else (-(-k // block), n)

        def make(r, number):
            return [("a", normal(r, 2, 3, k)), "w", ("_q", r.integers(low, high, (k, n)).astype(kind)),
                    ("_s", r.uniform(0.01, 0.1, shape).astype(F32)), ("_z", r.integers(low, high, shape).astype(kind))]
        node = helper.make_node("DequantizeLinear", ["_q", "_s"] + (["_z"] if zero else []), ["w"],
                                **({"axis": 1} if columns else {"axis": 0, "block_size": block}))
        return {"make": make, "before": [node], "constants": ["_q", "_s", "_z"], "domain": ""}
    for tag, form in (("i4_blocks", linear(ml_dtypes.int4, 64, 24, 16, False)), ("u4_blocks_zero", linear(ml_dtypes.uint4, 64, 20, 32, True)),
                      ("i4_columns_odd", linear(ml_dtypes.int4, 32, 21, 0, True, columns=True))):
        case("matmul_dequantized_" + tag, "MatMul", **form)


# ---- rotation ------------------------------------------------------------------------------------------------------------

def angles(longest, half, dtype=F32):
    a = np.arange(longest)[:, None] * 100.0 ** (-np.arange(half) / max(half, 1))[None]
    return np.cos(a).astype(dtype), np.sin(a).astype(dtype)


def rotation():
    def make(shape, half, positions):
        def inner(r, n):
            s = shape[1] if len(shape) == 3 else shape[2]
            cos, sin = angles(17, half)
            p = np.asarray([3], I64) if positions == "one" else r.integers(0, 17, (shape[0], s)).astype(I64)
            return [("x", normal(r, *shape)), ("p", p), ("cos", cos), ("sin", sin)]
        return inner
    constants = ["cos", "sin"]
    op = "RotaryEmbedding"
    case("rotary_3d", op, make((2, 5, 24), 4, "rows"), constants=constants)
    case("rotary_3d_start", op, make((2, 5, 24), 4, "one"), constants=constants)
    case("rotary_3d_interleaved", op, make((2, 5, 24), 4, "rows"), {"interleaved": 1}, constants=constants)
    case("rotary_3d_partial", op, make((2, 5, 30), 3, "rows"), {"num_heads": 3, "rotary_embedding_dim": 6}, constants=constants)
    case("rotary_4d", op, make((2, 3, 5, 8), 4, "rows"), constants=constants)
    case("rotary_4d_interleaved", op, make((2, 3, 5, 8), 4, "one"), {"interleaved": 1}, constants=constants)
    case("rotary_4d_partial", op, make((2, 3, 5, 10), 3, "rows"), {"num_heads": 3, "rotary_embedding_dim": 6}, constants=constants)


# ---- attention -----------------------------------------------------------------------------------------------------------

def attention():
    def make(b=2, s=5, hidden=11, heads=3, size=4, v_size=None, bias=True, mask=None, past=None, extra=False):
        def inner(r, n):
            v = v_size or size
            width, keys = heads * (2 * size + v), s + (past or 0)
            masks = {None: lambda: None,
                     "keys": lambda: ("mask", (r.random((b, keys)) < 0.7).astype(I32)),
                     "pairs": lambda: ("mask", (r.random((b, s, keys)) < 0.7).astype(I32)),
                     "lengths": lambda: ("mask", np.asarray([keys, keys - 2][:b], I32)),
                     "spans": lambda: ("mask", np.asarray([keys, keys - 1, 1, 2], I32))}
            return [("x", normal(r, b, s, hidden)), ("w", normal(r, hidden, width, scale=hidden ** -0.5)),
                    ("b", normal(r, width)) if bias else None, masks[mask](),
                    ("past", normal(r, 2, b, heads, past, size)) if past is not None else None] + \
                ([("bias", normal(r, 1 if extra == "one" else b, heads, s, keys))] if extra else [])
        return inner
    op, constants = "Attention", ["w", "b"]

    def add(tag, more=None, outputs=1, heads=3, instead=None, **forms):
        case("attention_" + tag, op, make(heads=heads, **forms), {"num_heads": heads, **(more or {})}, outputs, constants, instead=instead)
    add("plain")
    add("no_bias", bias=False, instead=lambda x: (op, {"num_heads": 3}, [*x[:2], ("b", np.zeros(36, F32)), *x[3:]]))
    add("scale", {"scale": 0.3})
    add("causal", {"unidirectional": 1})
    add("mask_keys", mask="keys")
    add("mask_keys_filter", {"mask_filter_value": -2.5}, mask="keys")
    add("mask_pairs", mask="pairs")
    add("mask_lengths", mask="lengths")
    add("mask_spans", mask="spans")
    add("mask_causal", {"unidirectional": 1}, mask="lengths")
    add("v_size", {"qkv_hidden_sizes": [12, 12, 21]}, v_size=7)
    add("past", {"unidirectional": 1}, outputs=2, past=3)
    add("past_one_token", {"unidirectional": 1}, outputs=2, past=6, s=1)
    add("past_mask", {"unidirectional": 1}, outputs=2, past=3, mask="keys")
    add("past_empty", {"unidirectional": 1}, outputs=2, past=0)
    add("present_only", {"unidirectional": 1}, outputs=2)
    add("bias_input", extra=True)
    add("bias_input_one", extra="one", mask="keys")

    def multi(b=2, s=5, t=None, heads=3, size=4, v_size=None, form="separate", bias=False, mask=None, past=None, extra=False):
        def inner(r, n):
            keys, v = t or s, v_size or size
            total = keys + (past or 0)
            q, k = ("q", normal(r, b, s, heads * size)), ("k", normal(r, b, keys, heads * size))
            w = ("v", normal(r, b, keys, heads * v))
            if form == "qkv":
                q, k, w = ("q", normal(r, b, s, heads, 3, size)), None, None
            elif form == "kv":
                k, w = ("k", normal(r, b, keys, heads, 2, size)), None
            elif form == "cross":
                k, w = ("k", normal(r, b, heads, keys, size)), ("v", normal(r, b, heads, keys, v))
            masks = {None: lambda: None,
                     "keys": lambda: ("mask", (r.random((b, total)) < 0.7).astype(I32)),
                     "pairs": lambda: ("mask", (r.random((b, s, total)) < 0.7).astype(I32)),
                     "none": lambda: ("mask", np.zeros((b, total), I32)),
                     "lengths": lambda: ("mask", np.asarray([total, total - 2], I32))}
            more = [("b", normal(r, heads * (2 * size + v))) if bias else None, masks[mask](),
                    ("bias", normal(r, *{"all": (b, heads), "heads": (1, heads), "rows": (b, 1), "one": (1, 1)}[extra], s, total)) if extra else None]
            if past is not None:
                more += [("past_k", normal(r, b, heads, past, size)), ("past_v", normal(r, b, heads, past, v))]
            return [q, k, w] + more
        return inner

    def separate(x):
        at = 0 if x[1] is None else 1
        packed = x[at][1]
        parts = [(n, packed[:, :, :, i].reshape(*packed.shape[:2], -1)) for i, n in enumerate("qkv"[at:])]
        return "MultiHeadAttention", {"num_heads": 3}, x[:at] + parts + x[3:]

    def add_multi(tag, more=None, outputs=1, heads=3, instead=None, **forms):
        case("multihead_" + tag, "MultiHeadAttention", multi(heads=heads, **forms), {"num_heads": heads, **(more or {})}, outputs, ["b"],
             instead=instead)
    add_multi("plain")
    add_multi("bias", bias=True)
    add_multi("bias_v_size", bias=True, v_size=7)
    add_multi("scale", {"scale": 0.3})
    add_multi("causal", {"unidirectional": 1})
    add_multi("cross", t=7)
    add_multi("cross_bias", t=7, bias=True)
    add_multi("qkv", form="qkv", instead=separate)
    add_multi("qkv_bias", form="qkv", bias=True, mask="keys", instead=separate)
    add_multi("kv", form="kv", t=7, instead=separate)
    add_multi("cross_heads", form="cross", t=7)
    add_multi("mask_keys", mask="keys")
    add_multi("mask_pairs", mask="pairs")
    add_multi("mask_lengths", mask="lengths")
    add_multi("mask_filter", {"mask_filter_value": -1.5}, mask="keys", t=7)
    add_multi("bias_input", extra="all")
    add_multi("bias_input_heads", extra="heads", mask="keys")
    add_multi("bias_input_rows", extra="rows")
    add_multi("bias_input_one", extra="one")
    add_multi("past", outputs=3, past=3)
    add_multi("past_causal", {"unidirectional": 1}, outputs=3, past=3)
    add_multi("past_mask", {"unidirectional": 1}, outputs=3, past=3, mask="keys", s=1)
    add_multi("present", outputs=3)
    add_multi("mask_causal", {"unidirectional": 1}, mask="keys", s=6)
    add_multi("mask_none", {"unidirectional": 1}, mask="none", past=2, outputs=3)
    add_multi("past_bias", outputs=3, past=3, bias=True)


# ---- GroupQueryAttention -------------------------------------------------------------------------------------------------

def grouped():
    def make(b=2, s=4, heads=4, kv=2, size=8, past=0, used=None, buffer=None, packed=False, rotary=0, positions=False, extra=None,
             sink=False, valid=None, dtype=F32):
        """past: tokens that every row has before; used: that many of them for each row; valid: for a first prompt, padded at the
        right, how many tokens each row has; buffer: length of a cache that stays as long."""
        def inner(r, n):
            length, total = buffer or past, past + s
            before = np.asarray(used or [past] * b)
            cache = [normal(r, b, kv, length, size, dtype=dtype) for _ in range(2)]
            for x in cache:
                for row in range(b):
                    x[row, :, before[row]:] = 0
            after = np.asarray(valid) if valid else before + s
            q, k, v = (normal(r, b, s, n * size, dtype=dtype) for n in (heads, kv, kv))
            qkv = [("q", np.concatenate([q, k, v], 2)), None, None] if packed else [("q", q), ("k", k), ("v", v)]
            cos, sin = angles(23, rotary // 2, dtype) if rotary else (None, None)
            where = before[:, None] + np.arange(s)[None] if not valid else np.broadcast_to(np.arange(s)[None], (b, s))
            tail = [("cos", cos) if rotary else None, ("sin", sin) if rotary else None,
                    ("positions", where.astype(I64)) if positions else None,
                    ("bias", normal(r, *{"all": (b, heads), "one": (1, 1), "rows": (b, 1)}[extra], s, total)) if extra else None,
                    ("sink", normal(r, heads)) if sink else None]
            while tail and tail[-1] is None:
                tail.pop()
            return qkv + [("past_k", cache[0]), ("past_v", cache[1]), ("lengths", (after - 1).astype(I32)),
                          ("total", np.asarray(total, I32))] + tail
        return inner

    def add(tag, more=None, outputs=3, **forms):
        case("groupquery_" + tag, "GroupQueryAttention", make(**forms),
             {"num_heads": forms.get("heads", 4), "kv_num_heads": forms.get("kv", 2), **(more or {})}, outputs, ["total", "cos", "sin"])
    rotate = {"do_rotary": 1}
    add("prompt")
    add("prompt_packed", packed=True)
    add("prompt_rotary", rotate, rotary=16, size=16)
    add("prompt_packed_rotary", rotate, packed=True, rotary=16, size=16)
    add("interleaved", {"do_rotary": 1, "rotary_interleaved": 1}, rotary=16, size=16)
    add("partial_rotary", rotate, rotary=16, size=32)
    add("one_group", kv=1)
    add("all_heads", kv=4)
    add("six_heads", heads=6, kv=2)
    add("token", past=5, s=1)
    add("token_rotary", rotate, past=5, s=1, rotary=16, size=16, packed=True)
    add("token_ragged", rotate, past=5, s=1, used=[5, 3], rotary=16, size=16)
    add("chunk", past=5, s=3, b=1)
    add("chunk_rotary", rotate, past=5, s=3, b=1, rotary=16, size=16)
    add("prompt_right_padded", past=0, s=4, valid=[4, 2])
    add("prompt_right_padded_both", {"causal": 0}, past=0, s=5, valid=[5, 3])
    add("prompt_right_padded_rotary", rotate, past=0, s=4, valid=[2, 4], rotary=16, size=16)
    add("buffer_prompt", rotate, buffer=9, s=4, rotary=16, size=16)
    add("buffer_token", rotate, buffer=9, past=5, s=1, rotary=16, size=16)
    add("buffer_token_ragged", rotate, buffer=9, past=5, s=1, used=[3, 5], rotary=16, size=16)
    add("window", {"local_window_size": 3}, s=7)
    add("window_token", {"local_window_size": 3}, past=7, s=1)
    add("window_longer", {"local_window_size": 30}, s=7)
    add("softcap", {"softcap": 1.5})
    add("softcap_window", {"softcap": 1.5, "local_window_size": 2}, s=6)
    add("smooth", {"smooth_softmax": 1})
    add("smooth_token", {"smooth_softmax": 1}, past=5, s=1)
    add("sink", sink=True)
    add("sink_window", {"local_window_size": 3}, sink=True, s=6)
    add("scale", {"scale": 0.2})
    add("positions", rotate, rotary=16, size=16, positions=True)
    add("positions_token", rotate, rotary=16, size=16, positions=True, past=5, s=1)
    add("bias", extra="all")
    add("bias_one_token", extra="one", past=5, s=1)
    add("bias_softcap", {"softcap": 1.5}, extra="rows")
    add("bias_buffer", extra="all", buffer=9, past=5, s=1)
    add("both_directions", {"causal": 0})
    add("both_directions_token", {"causal": 0}, past=5, s=3, b=1)
    add("scores", {"qk_output": 1}, outputs=4)
    add("scores_after", {"qk_output": 2, "softcap": 1.5}, outputs=4)
    add("scores_bias", {"qk_output": 1, "softcap": 1.5}, outputs=4, extra="all", past=5, s=1)
    add("scores_buffer", {"qk_output": 1, "local_window_size": 3}, outputs=4, buffer=9, past=5, s=1)

    # As exporters write it: the lengths by sums of the mask, the total by its shape, symbols for all axes, several calls of one model.
    def exported(b, s, past, used, buffer=None):
        def inner(r):
            given = dict(x for x in make(b=b, s=s, past=past, used=used, packed=True, rotary=16, size=16, buffer=buffer)(r, 0) if x is not None)
            mask = np.zeros((b, past + s), I64)
            for row in range(b):
                mask[row, :(used or [past] * b)[row] + s] = 1
            return [("_mask", mask), ("q", given["q"]), None, None, ("past_k", given["past_k"]), ("past_v", given["past_v"]),
                    "lengths", "total", ("cos", given["cos"]), ("sin", given["sin"]), ("_one", np.asarray([1], I64)), ("_axis", np.asarray(1, I64))]
        return inner
    before = [helper.make_node("ReduceSum", ["_mask", "_one"], ["sums"], keepdims=0), helper.make_node("Sub", ["sums", "_one"], ["less"]),
              helper.make_node("Cast", ["less"], ["lengths"], to=TensorProto.INT32), helper.make_node("Shape", ["_mask"], ["shape"]),
              helper.make_node("Gather", ["shape", "_axis"], ["width"], axis=0),
              helper.make_node("Cast", ["width"], ["total"], to=TensorProto.INT32)]
    sets = [exported(2, 5, 0, None), exported(2, 1, 5, None), exported(3, 1, 6, [6, 2, 4]), exported(1, 3, 4, None),
            exported(2, 1, 5, None, buffer=11), exported(2, 4, 0, None, buffer=11)]
    case("groupquery_exported", "GroupQueryAttention", lambda r, n: sets[n](r), {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}, 3,
         ["cos", "sin", "_one", "_axis"], sets=len(sets), before=before,
         symbols={"_mask": ["batch", "total"], "q": ["batch", "sequence", None], "past_k": ["batch", None, "past", None],
                  "past_v": ["batch", None, "past", None]})


# ---- experts -------------------------------------------------------------------------------------------------------------

def experts():
    def make(tokens=(7,), hidden=6, inner=5, count=4, fused=1, bias=True, third=False):
        def f(r, n):
            rows = int(np.prod(tokens))
            b = lambda name, width: (name, normal(r, count, width)) if bias else None
            x = [("x", normal(r, *tokens, hidden)), ("router", normal(r, rows, count)),
                 ("w1", normal(r, count, fused * inner, hidden, scale=0.5)), b("b1", fused * inner),
                 ("w2", normal(r, count, hidden, inner, scale=0.5)), b("b2", hidden)]
            if third:
                x += [("w3", normal(r, count, inner, hidden, scale=0.5)), b("b3", inner)]
            return x
        return f
    constants = ["w1", "b1", "w2", "b2", "w3", "b3", "s1", "s2", "s3", "z1", "z2", "z3"]

    def add(tag, more, instead=None, **forms):
        case("moe_" + tag, "MoE", make(**forms), more, 1, constants, instead=instead)
    add("relu", {"k": 1, "activation_type": "relu"})
    add("gelu_two", {"k": 2, "activation_type": "gelu"}, tokens=(2, 3))
    add("silu_normalized", {"k": 2, "activation_type": "silu", "normalize_routing_weights": 1}, bias=False)
    add("identity", {"k": 3, "activation_type": "identity"})
    swiglu = {"k": 2, "activation_type": "swiglu", "normalize_routing_weights": 1}
    add("swiglu_interleaved", {**swiglu, "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 1.5}, fused=2)

    def interleaved(x):
        w = x[2][1]
        return "MoE", {**swiglu, "swiglu_fusion": 1}, [*x[:2], ("w1", np.stack(np.split(w, 2, 1), 2).reshape(w.shape)), *x[3:]]
    add("swiglu_halves", {**swiglu, "swiglu_fusion": 2}, interleaved, fused=2, bias=False)

    def quantized(bits, block, tokens=(7,), hidden=32, inner=32, count=3, fused=1, bias=False, zero=False):
        def weight(r, tag, out, width):
            w = pack(r.integers(0, 2 ** bits, (count, out, width)), bits)
            blocks = (count, out, width // block) if block else (count, out)
            z = r.integers(0, 2 ** bits, blocks)
            return (f"w{tag}", w), (f"s{tag}", r.uniform(0.005, 0.02, blocks).astype(F32)), (f"z{tag}", pack(z, bits))

        def f(r, n):
            (w1, s1, z1), (w2, s2, z2) = weight(r, 1, fused * inner, hidden), weight(r, 2, hidden, inner)
            b = lambda name, width: (name, normal(r, count, width)) if bias else None
            x = [("x", normal(r, *tokens, hidden)), ("router", normal(r, int(np.prod(tokens)), count)), w1, s1, b("b1", fused * inner),
                 w2, s2, b("b2", hidden)]
            return x + ([None, None, None, z1, z2] if zero else [])
        return f

    def add_q(tag, more, bits, block=0, **forms):
        case("qmoe_" + tag, "QMoE", quantized(bits, block, **forms),
             {"expert_weight_bits": bits, "weights_prepacked": 0, **({"block_size": block} if block else {}), **more}, 1, constants)
    add_q("4", {"k": 2, "activation_type": "relu"}, 4, tokens=(2, 3))
    add_q("4_normalized", {"k": 2, "activation_type": "silu", "normalize_routing_weights": 1}, 4, bias=True)
    add_q("8", {"k": 1, "activation_type": "gelu"}, 8)
    add_q("4_blocks", {"k": 2, "activation_type": "silu"}, 4, 16)
    add_q("4_blocks_zero", {"k": 2, "activation_type": "silu"}, 4, 16, zero=True, hidden=48, inner=32)
    add_q("4_swiglu", {**swiglu, "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0, "swiglu_limit": 7.0}, 4, 32, fused=2, bias=True)


def main():
    for make in (activations, norms, products, few_bits, typed_few_bits, rotation, attention, grouped, experts):
        make()
    wanted = sys.argv[1:] or ["*"]
    failed = 0
    for name, build in CASES.items():
        if not any(fnmatch.fnmatch(name, w) for w in wanted):
            continue
        # Each in a process of its own: which forms ONNX Runtime does not take on a CPU is worth knowing all at once, and some it takes badly.
        child = os.fork()
        if child == 0:
            try:
                build()
            except Exception as e:
                print(f"{name}: {str(e).splitlines()[-1][:300]}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            failed += 1
            shutil.rmtree(HERE / name, ignore_errors=True)
            if os.WIFSIGNALED(status):
                print(f"{name}: ONNX Runtime ends by signal {os.WTERMSIG(status)}", file=sys.stderr)
    print(f"{len(CASES)} cases, {failed} not made")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
