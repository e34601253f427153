"""Makes tests/cli/bad/: small models that must be refused, each for one reason. Needs onnx (PyPI); nobody needs it to build or test.

    python make_bad.py        writes bad/*.onnx; what each must give is in bad_input.sh
"""
import os
import struct
import onnx
from onnx import helper as h, TensorProto as T

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bad")
os.makedirs(here, exist_ok=True)


def value(name, shape, dtype=T.FLOAT):
    return h.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs, outputs, initializers=(), opset=17, domains=()):
    graph = h.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)] + [h.make_opsetid(d, 1) for d in domains], ir_version=8)


def save(name, m):
    data = m if isinstance(m, bytes) else m.SerializeToString()
    with open(os.path.join(here, name + ".onnx"), "wb") as f:
        f.write(data)


def weight(name, shape, raw=None):
    n = 1
    for d in shape:
        n *= d
    return h.make_tensor(name, T.FLOAT, shape, raw if raw is not None else struct.pack(f"<{n}f", *([0.5] * n)), raw=True)


x, y = value("x", ["n", 4]), value("y", ["n", 3])
good = model([h.make_node("MatMul", ["x", "w"], ["y"], name="up")], [x], [y], [weight("w", [4, 3])])
save("good", good)
odd = "\x1b[31mred\nline\x9b \u00e9"
save("odd_names", model([h.make_node("MatMul", ["x" + odd, "w" + odd], ["y" + odd], name="up" + odd)], [value("x" + odd, ["n", 4])],
                        [value("y" + odd, ["n", 3])], [weight("w" + odd, [4, 3])]))  # this one is good
save("empty", b"")
save("text", b"this is no model, it is a line of text\n")
save("truncated", good.SerializeToString()[:-25])
save("inner_dims", model([h.make_node("MatMul", ["x", "w"], ["y"], name="up")], [x], [y], [weight("w", [5, 3])]))
save("cycle", model([h.make_node("Add", ["x", "b"], ["a"], name="first"), h.make_node("Add", ["a", "x"], ["b"], name="second")], [x], [value("b", ["n", 4])]))
save("undefined", model([h.make_node("Add", ["x", "ghost"], ["y"], name="sum")], [x], [value("y", ["n", 4])]))
save("twice", model([h.make_node("Neg", ["x"], ["y"]), h.make_node("Abs", ["x"], ["y"])], [x], [value("y", ["n", 4])]))
save("no_nodes", model([], [x], [value("y", ["n", 4])]))
save("no_outputs", model([h.make_node("Neg", ["x"], ["y"])], [x], []))
save("unknown_op", model([h.make_node("Frobnicate", ["x"], ["a"], name="f1"), h.make_node("Frobnicate", ["a"], ["b"], name="f2"),
                          h.make_node("Twiddle", ["b"], ["y"], domain="com.example")], [x], [value("y", ["n", 4])], domains=["com.example"]))
save("no_domain", model([h.make_node("Twiddle", ["x"], ["y"], domain="com.example")], [x], [value("y", ["n", 4])]))
short = weight("w", [4, 3])
short.raw_data = short.raw_data[:40]
save("short_weight", model([h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [short]))
bad_type = model([h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [weight("w", [4, 3])])
bad_type.graph.initializer[0].data_type = 77
save("unknown_dtype", bad_type)
negative = model([h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [weight("w", [4, 3])])
negative.graph.initializer[0].dims[0] = -4
save("negative_dim", negative)
huge = model([h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [weight("w", [4, 3])])
huge.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
save("huge_dims", huge)


def external(name, **fields):
    m = model([h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [weight("w", [4, 3])])
    t = m.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = T.EXTERNAL
    for k, v in fields.items():
        e = t.external_data.add()
        e.key, e.value = k, v
    save(name, m)


external("external_missing", location="nowhere.data", offset="0", length="48")
external("external_absolute", location="/etc/passwd", offset="0", length="48")
external("external_parent", location="../make_bad.py", offset="0", length="48")
external("external_beyond", location="text.onnx", offset="0", length="4800")
external("external_no_number", location="text.onnx", offset="twelve")
external("external_device", location="fifo", offset="0", length="48")


def nested(depth):
    g = h.make_graph([h.make_node("Identity", ["x"], ["r"])], "leaf", [], [value("r", ["n", 4])])
    for _ in range(depth):
        n = h.make_node("If", ["c"], ["r"], then_branch=g, else_branch=g if _ == 0 else h.make_graph([h.make_node("Identity", ["x"], ["r"])], "e", [], [value("r", ["n", 4])]))
        g = h.make_graph([n], "b", [], [value("r", ["n", 4])])
    return g


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


bomb = b""
for _ in range(4000):  # graph { node { attribute { g { node { ... } } } } }
    bomb = field(1, field(5, field(6, bomb)))
save("depth_bomb", varint(8) + varint(8) + field(7, bomb))
save("old_opset", model([h.make_node("Neg", ["x"], ["y"])], [x], [value("y", ["n", 4])], opset=3))
save("missing_attribute", model([h.make_node("Concat", ["x", "x"], ["y"], name="join")], [x], [value("y", ["n", 8])]))
save("bad_axis", model([h.make_node("Softmax", ["x"], ["y"], axis=7, name="soft")], [x], [value("y", ["n", 4])]))
save("arity", model([h.make_node("MatMul", ["x"], ["y"], name="half")], [x], [value("y", ["n", 4])]))
save("type_mix", model([h.make_node("Add", ["x", "i"], ["y"], name="mix")], [x, value("i", ["n", 4], T.INT64)], [value("y", ["n", 4])]))
save("nonzero", model([h.make_node("NonZero", ["x"], ["y"], name="where")], [x], [value("y", [2, "k"], T.INT64)]))
