"""Makes tests/cli/annotated/: one product with device annotations, sound and not. Needs onnx (PyPI); nobody needs it to build or test.

    python make_annotated.py        writes annotated/*.onnx; what each must give is in annotations.sh
"""
import os
import struct
import onnx
from onnx import helper as h, TensorProto as T

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "annotated")
os.makedirs(here, exist_ok=True)


def dim(size, shards):
    d = onnx.SimpleShardedDimProto()
    if isinstance(size, str):
        d.dim_param = size
    elif size is not None:
        d.dim_value = size
    if shards is not None:
        d.num_shards = shards
    return d


def spec(tensor, axes=(), device=(), groups=()):
    """axes: (axis, [(dim, shards), ...]) each; groups: (key, [devices]) each."""
    s = onnx.ShardingSpecProto(tensor_name=tensor, device=device)
    for key, devices in groups:
        s.index_to_device_group_map.append(onnx.IntIntListEntryProto(key=key, value=devices))
    for axis, dims in axes:
        d = onnx.ShardedDimProto(simple_sharding=[dim(*x) for x in dims])
        if axis is not None:
            d.axis = axis
        s.sharded_dim.append(d)
    return s


def model(specs, configurations=(("two", 2, ()),), uses=("two",), stage=None):
    w = h.make_tensor("w", T.FLOAT, [6, 8], struct.pack("<48f", *range(48)), raw=True)
    v = h.make_tensor("v", T.FLOAT, [8, 6], struct.pack("<48f", *range(48)), raw=True)
    up, down = h.make_node("MatMul", ["x", "w"], ["a"], name="up"), h.make_node("MatMul", ["b", "v"], ["y"], name="down")
    for use in uses:
        c = onnx.NodeDeviceConfigurationProto(configuration_id=use, sharding_spec=specs)
        if stage is not None:
            c.pipeline_stage = stage
        up.device_configurations.append(c)
    graph = h.make_graph([up, h.make_node("Tanh", ["a"], ["b"], name="act"), down], "g",
                         [h.make_tensor_value_info("x", T.FLOAT, ["n", 6])],
                         [h.make_tensor_value_info("y", T.FLOAT, ["n", 6])], [w, v])
    m = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=11)
    for name, count, devices in configurations:
        m.configuration.append(onnx.DeviceConfigurationProto(name=name, num_devices=count, device=devices))
    return m


def save(name, *args, **more):
    with open(os.path.join(here, name + ".onnx"), "wb") as f:
        f.write(model(*args, **more).SerializeToString())


column = [spec("w", [(1, [(8, 2)])], [0, 1]), spec("a", [(-1, [(8, 2)])], [0, 1])]
both = [spec("x", device=[-1], groups=[(-1, [0, 1])]), spec("w", device=[-1], groups=[(-1, [0, 1])]), spec("a")]
save("column", column)
save("whole", both)
save("row", [spec("x", [(1, [(6, 2)])], [0, 1]), spec("w", [(0, [(2, 2), (3, 1)])], [1, 0]), spec("a")])
save("of_four", column, (("four", 4, ("a", "b", "c", "d")), ("two", 2, ())), ("two",))
save("no_configuration", [], (), ())
save("other_count", column, (("three", 3, ()),), ("three",))
save("no_name", column, (("", 2, ()),), ("",))
save("no_devices", column, (("two", 0, ()),))
save("device_names", column, (("two", 2, ("a",)),))
save("twice_named", column, (("two", 2, ()), ("two", 2, ())))
save("unknown_configuration", column, uses=("three",))
save("annotated_twice", column, uses=("two", "two"))
save("stage", column, stage=1)
save("no_tensor", [spec("q", [(1, [(8, 2)])], [0, 1])])
save("tensor_twice", [column[0], column[0]])
save("no_axis", [spec("w", [(None, [(8, 2)])], [0, 1])])
save("far_axis", [spec("w", [(1 << 40, [(8, 2)])], [0, 1])])
save("axis_beyond", [spec("w", [(2, [(8, 2)])], [0, 1])])
save("axis_below", [spec("a", [(-3, [(8, 2)])], [0, 1])])
save("axis_twice", [spec("w", [(1, [(8, 2)]), (-1, [(8, 1)])], [0, 1])])
save("no_shards", [spec("w", [(1, [(8, None)])], [0, 1])])
save("many_shards", [spec("w", [(1, [(8, 4)])], [0, 1])])
save("many_shards_in_all", [spec("w", [(0, [(6, 2)]), (1, [(8, 2)])], [0, 1])])
save("huge_dims", [spec("w", [(1, [(1 << 62, 1), (1 << 62, 2)])], [0, 1])])
save("zero_dim", [spec("w", [(1, [(0, 2)])], [0, 1])])
save("small_dim", [spec("w", [(1, [(1, 2), (8, 1)])], [0, 1])])
save("wrong_dim", [spec("w", [(1, [(9, 2)])], [0, 1])])
save("unknown_symbol", [spec("a", [(0, [("rows", 2)])], [0, 1])])
save("device_beyond", [spec("w", [(1, [(8, 2)])], [0, 7])])
save("device_negative", [spec("w", [(1, [(8, 2)])], [0, -1])])
save("device_twice", [spec("w", [(1, [(8, 2)])], [1, 1])])
save("few_devices", [spec("w", [(1, [(8, 2)])], [0])])
save("part_of_devices", [spec("w", device=[0])])
save("group_beyond", [spec("w", device=[-1], groups=[(-1, [0, 5])])])
save("conflict", [spec("w", [(1, [(8, 2)])], [0, 1]), spec("a", [(0, [("n", 2)])], [0, 1])])
