#!/usr/bin/env python3
"""Makes the model of the measurements: Llama-like, with past, float32, weights as external data.

    python bench/make_model.py /tmp/bench/model                                # 4 layers, 1.3 GB of random weights
    python bench/make_model.py /tmp/bench/graph80 --layers 80 --graph-only     # the weights are a hole in a sparse file

The graph is a TorchScript export of the transformers' Llama at opset 17, traced over weights that take no memory; so any number of layers
fits any machine. Afterwards each weight becomes an initializer with its place in DIR/model.onnx_data, and is written there.
Inputs: input_ids, attention_mask, position_ids, past_key_values.N.{key,value}; outputs: logits, present.N.{key,value}.

PyPI, as tested with Python 3.11: torch==2.9.1 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 numpy==2.3.5
"""
import argparse
import logging
import os
import pathlib
import tempfile
import time
import warnings

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import transformers as hf
from optimum.exporters.onnx import model_patcher
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks

ALIGNMENT = 4096


class WithPast(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        cache = hf.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                         past_key_values=cache, use_cache=True)
        return (out.logits, *[t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)])


def weightless(config):
    """The model with each parameter one number spread over its shape by strides of 0; the rotary table is real."""
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(config)
    count = 0
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            count += 1      # equal parameters would be merged
            flat = torch.full((1,), 0.01 + 1e-6 * count).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(flat, requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config, device="cpu")
    return model.eval()


def export(model, config, path):
    """The graph with its weights as inputs."""
    head_dim, heads = config.hidden_size // config.num_attention_heads, config.num_key_value_heads
    batch, past, sequence = 2, 3, 4
    inputs = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "past + sequence"},
              "position_ids": {0: "batch", 1: "sequence"}}
    outputs = {"logits": {0: "batch", 1: "sequence"}}
    for i in range(config.num_hidden_layers):
        for part in ("key", "value"):
            inputs[f"past_key_values.{i}.{part}"] = {0: "batch", 2: "past"}
            outputs[f"present.{i}.{part}"] = {0: "batch", 2: "past + sequence"}
    ids = torch.randint(0, config.vocab_size, (batch, sequence))
    positions = torch.arange(past, past + sequence).expand(batch, -1).contiguous()
    cache = [torch.zeros(batch, heads, past, head_dim) for _ in range(2 * config.num_hidden_layers)]
    masks.register("sdpa", model_patcher.sdpa_mask_without_vmap)
    hf.cache_utils.DynamicLayer.update = model_patcher.patched_dynamic_layer_update
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(WithPast(model), (ids, torch.ones(batch, past + sequence, dtype=torch.long), positions, *cache),
                          str(path), dynamo=False, opset_version=17, export_params=False, input_names=list(inputs),
                          output_names=list(outputs), dynamic_axes=inputs | outputs)
    return set(inputs)


def own_weights(proto, inputs):
    """Turns weight inputs into initializers without data, transposed where the exporter would have folded the Transpose."""
    graph = proto.graph
    weights = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input if i.name not in inputs}
    for value in [i for i in graph.input if i.name in weights]:
        graph.input.remove(value)
    renamed, kept = {}, []
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights:
            weights[node.input[0]].reverse()
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    for node in kept:
        for k, name in enumerate(node.input):
            node.input[k] = renamed.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)
    return weights


def to_bf16(proto):
    """Every float32 of the graph becomes a bfloat16: for speed alone, positions lose what bfloat16 has not."""
    types = onnx.TensorProto
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for value in [v for v in values if v.type.tensor_type.elem_type == types.FLOAT]:
        value.type.tensor_type.elem_type = types.BFLOAT16
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == types.FLOAT:
                attribute.i = types.BFLOAT16
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == types.FLOAT:
                numbers = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                halves = ((numbers.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
                attribute.t.CopyFrom(types(data_type=types.BFLOAT16, dims=numbers.shape, raw_data=halves.tobytes()))


def place(proto, weights, data_name, bf16=False):
    """An initializer with external data for each weight; returns the length of the file and (name, shape, offset) of each."""
    end, places = 0, []
    for name, shape in weights.items():
        kind = onnx.TensorProto.BFLOAT16 if bf16 else onnx.TensorProto.FLOAT
        tensor = proto.graph.initializer.add(name=name, dims=shape, data_type=kind, data_location=onnx.TensorProto.EXTERNAL)
        length = (2 if bf16 else 4) * int(np.prod(shape))
        for key, value in (("location", data_name), ("offset", end), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        places.append((name, shape, end))
        end += -(-length // ALIGNMENT) * ALIGNMENT
    return end, places


def write_weights(path, end, places, seed):
    generator = np.random.Generator(np.random.SFC64(seed))
    with open(path, "wb") as file:
        file.truncate(end)
        for name, shape, offset in places:
            if len(shape) == 1:
                values = np.ones(shape, np.float32)
            else:       # [in, out], but the embedding is [vocabulary, hidden]
                spread = 1.0 if "embed_tokens" in name else shape[0] ** -0.5
                values = generator.standard_normal(shape, np.float32) * np.float32(spread)
            file.seek(offset)
            values.tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    for name, default in (("layers", 4), ("hidden", 2048), ("heads", 16), ("kv-heads", 16), ("ffn", 5632), ("vocab", 32000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--graph-only", action="store_true", help="leave the weights unwritten: zeros that take no disk")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 instead of float32; with --graph-only")
    a = parser.parse_args()
    if a.bf16 and not a.graph_only:
        parser.error("--bf16 needs --graph-only")
    logging.disable(logging.WARNING)
    started = time.time()

    config = hf.LlamaConfig(
        vocab_size=a.vocab, hidden_size=a.hidden, num_hidden_layers=a.layers, num_attention_heads=a.heads,
        num_key_value_heads=a.kv_heads, intermediate_size=a.ffn, max_position_embeddings=4096, attn_implementation="sdpa")
    a.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = export(weightless(config), config, pathlib.Path(scratch) / "graph.onnx")
        proto = onnx.load(pathlib.Path(scratch) / "graph.onnx", load_external_data=False)
    weights = own_weights(proto, inputs)
    if a.bf16:
        to_bf16(proto)
    end, places = place(proto, weights, "model.onnx_data", a.bf16)
    onnx.save(proto, a.folder / "model.onnx")
    data = a.folder / "model.onnx_data"
    if a.graph_only:
        data.unlink(missing_ok=True)
        data.touch()
        os.truncate(data, end)
    else:
        write_weights(data, end, places, a.seed)
    print(f"{a.folder}/model.onnx: {len(proto.graph.node)} nodes, {len(places)} weights, {end / 1e9:.2f} GB "
          f"{'unwritten' if a.graph_only else 'written'}, {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
