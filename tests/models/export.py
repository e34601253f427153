#!/usr/bin/env python3
"""Makes the test models: small random Transformers, exported the way people export them.

    python tests/models/export.py              # all of them, next to this file
    python tests/models/export.py 'gpt2*' t5-ts17
    python tests/models/export.py --list
    python tests/models/export.py --check      # re-checks the folders that are there, makes nothing

Nobody needs this to build or to test: its results are committed. Each is an ONNX test folder

    NAME/model.onnx
    NAME/test_data_set_N/{input,output}_K.pb      K in the order of the graph's inputs and outputs

The outputs are computed by PyTorch in float64 and rounded once, to the type of the ONNX output; ONNX Runtime only checks them
(1e-5 of the largest magnitude). Weights are random, seeded by the model's name, and scaled so that activations stay of
order one and every weight can be felt in the outputs (checked by its gradient).

Start reading at MODELS, at the end.

PyPI, as tested with Python 3.11: torch==2.9.1 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 onnxscript==0.7.2
onnxruntime==1.31.1 numpy==2.3.5 accelerate==1.15.0
"""
import argparse
import contextlib
import copy
import dataclasses
import fnmatch
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import typing
import warnings
import zlib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import torch
import transformers as hf

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-5


# --- weights -----------------------------------------------------------------------------------------------------------

def randomize(model: torch.nn.Module, seed: int, embedding_std: float = 1.0) -> torch.nn.Module:
    """Gives every parameter random values that keep the variance of what passes through, whatever the layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, std, mean=0.0):
        parameter.data.copy_(mean + std * torch.randn(parameter.shape, generator=generator))

    seen = set()
    for name, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:      # tied: the embedding came first and fits both uses
                continue
            seen.add(id(parameter))
            if leaf == "bias" or leaf.endswith("_bias"):
                normal(parameter, 0.2)
            elif isinstance(module, torch.nn.Embedding):
                # T5's table of biases, learned positions: added to something of order one
                small = "relative_attention_bias" in name or "position" in name or name.endswith("wpe")
                normal(parameter, 0.5 if small else embedding_std)
            elif parameter.dim() == 1:     # the weight of a norm
                normal(parameter, 0.2, mean=1.0)
            elif type(module).__name__ == "Conv1D":    # GPT-2 stores [in, out]
                normal(parameter, parameter.shape[0] ** -0.5)
            elif parameter.dim() >= 2 and leaf == "weight":
                normal(parameter, float(np.prod(parameter.shape[1:])) ** -0.5)
            else:                          # class token, position embeddings as bare parameters
                normal(parameter, 0.5)
    return model.eval()


@contextlib.contextmanager
def float64_throughout():
    """transformers computes norms and rotary tables in float32 on purpose; the reference must not."""
    kept = torch.float32, torch.Tensor.float
    torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = kept


def as_double(tensors):
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def reference(module, inputs):
    """The outputs of `module` in float64, as a list of tensors."""
    exact = copy.deepcopy(module).double()
    with torch.no_grad(), float64_throughout():
        outputs = exact(*as_double(inputs))
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    assert all(o.dtype == torch.float64 for o in outputs if o.is_floating_point())
    return outputs


def parameters_without_effect(module, inputs):
    """Names of the parameters whose gradient vanishes (a key's bias does by the softmax: it shifts a whole row)."""
    exact = copy.deepcopy(module).double()
    for parameter in exact.parameters():
        parameter.requires_grad_(True)
    with float64_throughout():
        outputs = exact(*as_double(inputs))
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    generator = torch.Generator().manual_seed(0)
    sum((o * torch.randn(o.shape, generator=generator, dtype=torch.float64)).sum() for o in outputs).backward()
    return [n for n, p in exact.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6]


# --- wrappers: what the exporters see ------------------------------------------------------------------------------------

class Logits(torch.nn.Module):
    """input_ids, attention_mask -> logits"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


class LogitsWherePresent(torch.nn.Module):
    """As above for rows padded at the left, zero at the padding: what attention gives a row without any key is nobody's promise."""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids):
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                            use_cache=False).logits
        return logits.masked_fill(attention_mask.unsqueeze(-1) == 0, 0.0)


class Loss(torch.nn.Module):
    """input_ids, attention_mask, labels -> the mean loss of the next token; labels of -100 are ignored"""
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.loss = torch.nn.CrossEntropyLoss(ignore_index=-100)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
        return self.loss(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


class WrittenOutLoss(torch.nn.Module):
    """The same loss by log_softmax and gather, and beside the mean the loss of each token"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, labels):
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[:, :-1]
        labels = labels[:, 1:]
        counted = labels != -100
        safe = torch.where(counted, labels, torch.zeros_like(labels))
        picked = torch.log_softmax(logits, dim=-1).gather(-1, safe.unsqueeze(-1)).squeeze(-1)
        each = torch.where(counted, -picked, torch.zeros_like(picked))
        return each.sum() / counted.to(each.dtype).sum(), each


class Encoder(torch.nn.Module):
    """input_ids, attention_mask, token_type_ids -> last_hidden_state, pooler_output"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return out.last_hidden_state, out.pooler_output


class EncoderDecoder(torch.nn.Module):
    """input_ids, attention_mask, decoder_input_ids -> logits"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, decoder_input_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids,
                          use_cache=False).logits


class Image(torch.nn.Module):
    """pixel_values -> logits, last_hidden_state"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        out = self.model(pixel_values=pixel_values, output_hidden_states=True)
        return out.logits, out.hidden_states[-1]


class Hidden(torch.nn.Module):
    """input_ids, attention_mask -> last_hidden_state"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class SpeechEncoder(torch.nn.Module):
    """input_features -> last_hidden_state of the encoder"""
    def __init__(self, model):
        super().__init__()
        self.model = model.model.encoder

    def forward(self, input_features):
        return self.model(input_features=input_features)[0]


class WithPast(torch.nn.Module):
    """What Optimum exports: ..., past_key_values.N.{key,value} -> logits, present.N.{key,value}"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        cache = hf.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                         past_key_values=cache, use_cache=True)
        layers = out.past_key_values.layers
        return (out.logits, *[t for layer in layers for t in (layer.keys, layer.values)])


# --- inputs ------------------------------------------------------------------------------------------------------------

def tokens(generator, vocabulary, *shape):
    return torch.randint(0, vocabulary, shape, generator=generator)


def right_padded(batch, length):
    """Row 0 whole, row i without its last 2·i entries: [batch, length]"""
    kept = torch.clamp(length - 2 * torch.arange(batch), min=2)
    return (torch.arange(length)[None] < kept[:, None]).long()


def text(vocabulary, shapes=((2, 7), (3, 11))):
    def make(generator):
        return [(tokens(generator, vocabulary, b, s), right_padded(b, s)) for b, s in shapes]
    return make


def text_left_padded(vocabulary, shapes=((3, 9), (2, 13))):
    def make(generator):
        sets = []
        for batch, length in shapes:
            mask = right_padded(batch, length).flip(1)
            positions = torch.clamp(mask.cumsum(1) - 1, min=0)
            sets.append((tokens(generator, vocabulary, batch, length), mask, positions))
        return sets
    return make


def text_and_labels(vocabulary, shapes=((2, 7), (3, 11))):
    def make(generator):
        sets = []
        for batch, length in shapes:
            ids = tokens(generator, vocabulary, batch, length)
            mask = right_padded(batch, length)
            labels = torch.where(mask == 1, ids, -100)
            labels[0, 2:4] = -100
            sets.append((ids, mask, labels))
        return sets
    return make


def text_and_types(vocabulary, shapes=((2, 7), (3, 11))):
    def make(generator):
        return [(tokens(generator, vocabulary, b, s), right_padded(b, s), tokens(generator, 2, b, s)) for b, s in shapes]
    return make


def source_and_target(vocabulary, shapes=((2, 7, 5), (3, 11, 6))):
    def make(generator):
        return [(tokens(generator, vocabulary, b, s), right_padded(b, s), tokens(generator, vocabulary, b, t))
                for b, s, t in shapes]
    return make


def images(channels, height, width, batches=(2, 3)):
    def make(generator):
        return [(torch.randn(b, channels, height, width, generator=generator),) for b in batches]
    return make


def sound(features, length, batches=(2, 3)):
    def make(generator):
        return [(torch.randn(b, features, length, generator=generator),) for b in batches]
    return make


def text_and_past(vocabulary, layers, heads, head_dim, shapes=((2, 0, 7), (3, 6, 4), (1, 11, 1))):
    """(batch, past, sequence); past 0 is the first call of a generation, sequence 1 each later one."""
    def make(generator):
        sets = []
        for batch, past, length in shapes:
            mask = right_padded(batch, past + length).flip(1) if past else right_padded(batch, length)
            positions = torch.clamp(mask.cumsum(1) - 1, min=0)[:, past:]
            cache = [torch.randn(batch, heads, past, head_dim, generator=generator) for _ in range(2 * layers)]
            sets.append((tokens(generator, vocabulary, batch, length), mask, positions, *cache))
        return sets
    return make


# --- exporters ---------------------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Model:
    name: str
    build: typing.Callable[[int], torch.nn.Module]     # seed -> the Hugging Face model
    wrap: type
    inputs: dict                                       # name -> {axis: symbol}, in the order of wrap.forward
    outputs: list
    data: typing.Callable                              # generator -> list of tuples of tensors
    export: typing.Callable                            # (model, module, data, path)
    no_effect: tuple = ()                              # parameters allowed to have no effect: patterns


@contextlib.contextmanager
def traceable():
    """Since 4.53 transformers makes masks by vmap, which neither exporter can follow; Optimum carries the same
    masks without it."""
    from optimum.exporters.onnx import model_patcher
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks
    kept = {kind: masks[kind] for kind in ("sdpa", "eager")}
    masks.register("sdpa", model_patcher.sdpa_mask_without_vmap)
    masks.register("eager", model_patcher.eager_mask_without_vmap)
    try:
        yield
    finally:
        for kind, function in kept.items():
            masks.register(kind, function)


def torchscript(opset):
    def export(model, module, data, path):
        with traceable():
            torch.onnx.export(module, data[0], str(path), dynamo=False, opset_version=opset, input_names=list(model.inputs),
                              output_names=model.outputs, dynamic_axes=model.inputs)
    return export


def dynamo(opset):
    def export(model, module, data, path):
        # names are hints only: dynamo gives each axis of each input a symbol of its own unless the trace ties them
        shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in axes} for axes in model.inputs.values())
        with traceable():
            torch.onnx.export(module, data[0], str(path), dynamo=True, opset_version=opset, input_names=list(model.inputs),
                              output_names=model.outputs, dynamic_shapes=shapes, external_data=False, verbose=False)
        proto = onnx.load(path)
        for node in proto.graph.node:      # Python tracebacks with the paths of this machine: a third of the file
            for prop in [p for p in node.metadata_props if p.key.endswith("stack_trace")]:
                node.metadata_props.remove(prop)
        onnx.save(proto, path)
    return export


def optimum(task, opset):
    def export(model, module, data, path):
        from optimum.exporters.onnx import main_export
        with tempfile.TemporaryDirectory() as folder:
            module.model.save_pretrained(folder + "/in")
            main_export(folder + "/in", output=folder + "/out", task=task, opset=opset, do_validation=False,
                        no_post_process=False)
            shutil.copy(folder + "/out/model.onnx", path)
    return export


# --- one folder --------------------------------------------------------------------------------------------------------

def make(model: Model):
    seed = zlib.crc32(model.name.rsplit("-", 1)[0].encode())     # all exporters of one model get the same weights and inputs
    torch.manual_seed(seed)
    module = model.wrap(model.build(seed)).eval()
    data = model.data(torch.Generator().manual_seed(seed + 1))

    idle = [n for n in parameters_without_effect(module, data[0])
            if not any(fnmatch.fnmatchcase(n, pattern) for pattern in model.no_effect)]
    if idle:
        raise SystemExit(f"{model.name}: no effect on the outputs: {', '.join(idle)}")

    folder = HERE / model.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(model, copy.deepcopy(module), data, folder / "model.onnx")

    graph = onnx.load(folder / "model.onnx").graph
    initializers = {i.name for i in graph.initializer}
    in_names = [i.name for i in graph.input if i.name not in initializers]
    for number, inputs in enumerate(data):
        by_name = dict(zip(model.inputs, inputs))
        outputs = dict(zip(model.outputs, reference(module, inputs)))
        (folder / f"test_data_set_{number}").mkdir()
        for k, name in enumerate(in_names):
            save(folder, number, "input", k, name, by_name[name].numpy())
        for k, output in enumerate(graph.output):
            kind = onnx.helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
            save(folder, number, "output", k, output.name, outputs[output.name].numpy().astype(kind))


def save(folder, number, what, k, name, array):
    tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
    (folder / f"test_data_set_{number}" / f"{what}_{k}.pb").write_bytes(tensor.SerializeToString())


def load(folder, what, k):
    tensor = onnx.TensorProto.FromString((folder / f"{what}_{k}.pb").read_bytes())
    return tensor.name, onnx.numpy_helper.to_array(tensor)


def with_whole_rotary_tables(proto):
    """Dynamo writes RotaryEmbedding with cos and sin of [1, sequence, ·] for any batch. The meaning is clear; ONNX Runtime wants [batch, ...]."""
    for index, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "RotaryEmbedding":
            fixed = []
            for k in (1, 2):
                name, old = f"{node.output[0]}_{k}", node.input[k]
                fixed += [onnx.helper.make_node("Shape", [node.input[0]], [name + "_batch"], start=0, end=1),
                          onnx.helper.make_node("Constant", [], [name + "_ones"], value_ints=[1, 1]),
                          onnx.helper.make_node("Concat", [name + "_batch", name + "_ones"], [name + "_shape"], axis=0),
                          onnx.helper.make_node("Expand", [old, name + "_shape"], [name])]
                node.input[k] = name
            for one in reversed(fixed):
                proto.graph.node.insert(index, one)
    return proto


def check(name):
    """One line about the folder; raises where ONNX Runtime's outputs are not the expected ones."""
    folder = HERE / name
    proto = onnx.load(folder / "model.onnx")
    try:
        onnx.checker.check_model(proto, full_check=True)
        verdict = "valid"
    except Exception as error:
        verdict = "checker: " + str(error).splitlines()[0][:80]
    session = onnxruntime.InferenceSession(with_whole_rotary_tables(copy.deepcopy(proto)).SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    worst, shapes, spread = 0.0, [], []
    for data in sorted(folder.glob("test_data_set_*")):
        feeds = dict(load(data, "input", k) for k in range(len(list(data.glob("input_*.pb")))))
        assert sorted(feeds) == sorted(i.name for i in session.get_inputs())
        for k, got in enumerate(session.run(None, feeds)):
            _, expected = load(data, "output", k)
            assert got.shape == expected.shape and got.dtype == expected.dtype, (name, k, got.shape, expected.shape)
            assert np.isfinite(expected).all(), (name, k)
            error = np.abs(got.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30)
            assert error < TOLERANCE, (name, data.name, k, error)
            worst = max(worst, error)
        first = load(data, "output", 0)[1]
        shapes.append("x".join(map(str, first.shape)) or "scalar")
        spread.append(f"{first.std() if first.ndim else float(first):.2f}")
    opsets = " ".join(f"{o.domain or 'ai.onnx'}:{o.version}" for o in proto.opset_import)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name:22} {(folder / 'model.onnx').stat().st_size // 1024:5} KB, {size // 1024:5} in all, {opsets}, ir {proto.ir_version}, "
          f"{len(proto.graph.node)} nodes, error {worst:.1e}, outputs {' '.join(shapes)} std {' '.join(spread)}, {verdict}", flush=True)


# --- the models --------------------------------------------------------------------------------------------------------
# Sizes are chosen so that little is a power of two and that splits over 2, 3, 4, 5 or 6 ranks are real somewhere.

BATCH, SEQUENCE = "batch", "sequence"
TEXT = {"input_ids": {0: BATCH, 1: SEQUENCE}, "attention_mask": {0: BATCH, 1: SEQUENCE}}


def gpt2(seed, **changes):
    config = hf.GPT2Config(**{**dict(
        vocab_size=257, n_positions=40, n_embd=84, n_layer=2, n_head=6, n_inner=156, bos_token_id=0, eos_token_id=0,
        attn_implementation="eager"), **changes})
    return randomize(hf.GPT2LMHeadModel(config), seed, embedding_std=config.n_embd ** -0.5)


def llama(seed, **changes):
    config = hf.LlamaConfig(**{**dict(
        vocab_size=211, hidden_size=96, num_hidden_layers=2, num_attention_heads=12, num_key_value_heads=4,
        intermediate_size=120, max_position_embeddings=64, attn_implementation="sdpa"), **changes})
    return randomize(hf.LlamaForCausalLM(config), seed, embedding_std=config.hidden_size ** (-0.5 if config.tie_word_embeddings else 0))


def mistral(seed):
    return randomize(hf.MistralForCausalLM(hf.MistralConfig(
        vocab_size=300, hidden_size=72, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
        intermediate_size=84, max_position_embeddings=64, sliding_window=5, attn_implementation="eager")), seed)


def qwen2(seed):
    config = hf.Qwen2Config(
        vocab_size=255, hidden_size=60, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=1,
        intermediate_size=140, max_position_embeddings=64, tie_word_embeddings=True, attn_implementation="sdpa")
    return randomize(hf.Qwen2ForCausalLM(config), seed, embedding_std=config.hidden_size ** -0.5)


def opt(seed):
    config = hf.OPTConfig(
        vocab_size=301, hidden_size=54, word_embed_proj_dim=54, num_hidden_layers=3, num_attention_heads=6, ffn_dim=162,
        max_position_embeddings=40, pad_token_id=1, bos_token_id=2, eos_token_id=2, attn_implementation="sdpa")
    return randomize(hf.OPTForCausalLM(config), seed, embedding_std=config.hidden_size ** -0.5)


def bert(seed):
    return randomize(hf.BertModel(hf.BertConfig(
        vocab_size=263, hidden_size=72, num_hidden_layers=2, num_attention_heads=12, intermediate_size=174,
        max_position_embeddings=40, attn_implementation="sdpa")), seed)


def t5(seed):
    return randomize(hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=259, d_model=56, d_kv=12, num_heads=4, d_ff=108, num_layers=2, num_decoder_layers=2,
        relative_attention_num_buckets=10, relative_attention_max_distance=20, decoder_start_token_id=0)), seed)


def vit(seed):
    return randomize(hf.ViTForImageClassification(hf.ViTConfig(
        image_size=(24, 36), patch_size=6, num_channels=3, hidden_size=60, num_hidden_layers=3, num_attention_heads=3,
        intermediate_size=126, num_labels=13, attn_implementation="sdpa")), seed)


class ExpertsInTurn(torch.nn.Module):
    """A mixture of experts as it is written for export: every expert computes every token; what the router did not choose has weight 0."""
    def __init__(self, block):
        super().__init__()
        self.gate, self.experts, self.top_k = block.gate, block.experts, block.top_k

    def forward(self, hidden_states):
        batch, length, width = hidden_states.shape
        x = hidden_states.reshape(-1, width)
        logits = self.gate(x)
        weights, chosen = torch.topk(torch.softmax(logits, dim=-1), self.top_k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        routing = torch.zeros_like(logits).scatter(1, chosen, weights)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            out = out + expert(x) * routing[:, i, None]
        return out.reshape(batch, length, width), logits


def mixtral(seed, **changes):
    config = hf.MixtralConfig(**{**dict(
        vocab_size=107, hidden_size=40, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=1, head_dim=8,
        intermediate_size=22, num_local_experts=6, num_experts_per_tok=2, max_position_embeddings=64, sliding_window=None,
        attn_implementation="eager"), **changes})
    model = hf.MixtralForCausalLM(config)
    for layer in model.model.layers:
        layer.block_sparse_moe = ExpertsInTurn(layer.block_sparse_moe)
    return randomize(model, seed)


def all_experts_at_once(self, hidden_states, router_indices=None, routing_weights=None):
    """GptOssExperts.forward as it computes on accelerators: batched products over all experts."""
    batch, experts = hidden_states.shape[0], routing_weights.shape[1]
    x = hidden_states.reshape(-1, self.hidden_size).repeat(experts, 1).view(experts, -1, self.hidden_size)
    gate_up = torch.bmm(x, self.gate_up_proj) + self.gate_up_proj_bias[..., None, :]
    gate, up = gate_up[..., ::2], gate_up[..., 1::2]
    gate, up = gate.clamp(max=self.limit), up.clamp(min=-self.limit, max=self.limit)
    y = torch.bmm((up + 1) * gate * torch.sigmoid(gate * self.alpha), self.down_proj) + self.down_proj_bias[..., None, :]
    y = y.view(experts, batch, -1, self.hidden_size)
    return (y * routing_weights.transpose(0, 1).view(experts, batch, -1)[..., None]).sum(dim=0)


def gpt_oss(seed, **changes):
    from transformers.models.gpt_oss import modeling_gpt_oss
    modeling_gpt_oss.GptOssExperts.forward = all_experts_at_once
    config = hf.GptOssConfig(**{**dict(
        vocab_size=103, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=8,
        intermediate_size=24, num_local_experts=3, num_experts_per_tok=2, max_position_embeddings=64, sliding_window=5,
        rope_scaling=None, attn_implementation="eager"), **changes})
    return randomize(hf.GptOssForCausalLM(config), seed)


def falcon(seed):      # one key and value head for all, attention and MLP side by side
    return randomize(hf.FalconForCausalLM(hf.FalconConfig(
        vocab_size=131, hidden_size=56, num_hidden_layers=2, num_attention_heads=7, ffn_hidden_size=112, multi_query=True, parallel_attn=True,
        bias=False, alibi=False, new_decoder_architecture=False)), seed, embedding_std=56 ** -0.5)


def bloom(seed):       # biases by distance in place of positions; heads and q, k, v interleaved
    return randomize(hf.BloomForCausalLM(hf.BloomConfig(vocab_size=127, hidden_size=48, n_layer=2, n_head=6)), seed, embedding_std=48 ** -0.5)


def neox(seed):        # attention and MLP side by side; q, k, v interleaved per head; a part of each head turned
    return randomize(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(
        vocab_size=110, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=84, rotary_pct=0.5,
        max_position_embeddings=64, use_parallel_residual=True)), seed)


def phi3(seed):        # packed q|k|v and gate|up
    return randomize(hf.Phi3ForCausalLM(hf.Phi3Config(
        vocab_size=113, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, intermediate_size=70,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)), seed)


def gemma3(seed):      # norms of q and k, and before and behind each block; a window in every second layer
    return randomize(hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(
        vocab_size=109, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=10, intermediate_size=66,
        max_position_embeddings=64, sliding_window=5, sliding_window_pattern=2, query_pre_attn_scalar=10)), seed, embedding_std=48 ** -0.5)


def qwen3(seed):
    return randomize(hf.Qwen3ForCausalLM(hf.Qwen3Config(
        vocab_size=115, hidden_size=50, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=5, head_dim=8, intermediate_size=75,
        max_position_embeddings=64, tie_word_embeddings=False)), seed)


def albert(seed):      # one layer's weights for all layers
    return randomize(hf.AlbertModel(hf.AlbertConfig(
        vocab_size=120, embedding_size=20, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, intermediate_size=90,
        max_position_embeddings=40)), seed)


def distilbert(seed):
    return randomize(hf.DistilBertModel(hf.DistilBertConfig(
        vocab_size=120, dim=48, n_layers=2, n_heads=6, hidden_dim=84, max_position_embeddings=40)), seed)


def bart(seed):
    return randomize(hf.BartForConditionalGeneration(hf.BartConfig(
        vocab_size=105, d_model=40, encoder_layers=1, decoder_layers=1, encoder_attention_heads=5, decoder_attention_heads=5, encoder_ffn_dim=65,
        decoder_ffn_dim=65, max_position_embeddings=40)), seed)


def whisper(seed):     # two convolutions in front
    return randomize(hf.WhisperForConditionalGeneration(hf.WhisperConfig(
        vocab_size=103, num_mel_bins=12, d_model=40, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=66, decoder_ffn_dim=66, max_source_positions=12, max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1)), seed)


def present(layers):
    return ["logits", *[f"present.{i}.{part}" for i in range(layers) for part in ("key", "value")]]


def past(layers):
    axes = {0: BATCH, 2: "past"}
    return TEXT | {"position_ids": TEXT["input_ids"]} | {
        f"past_key_values.{i}.{part}": axes for i in range(layers) for part in ("key", "value")}


def pair(name, build, wrap, inputs, outputs, data, **more):
    """The same model by TorchScript at opset 17 and by dynamo at opset 18."""
    return [Model(f"{name}-ts17", build, wrap, inputs, outputs, data, torchscript(17), **more),
            Model(f"{name}-dy18", build, wrap, inputs, outputs, data, dynamo(18), **more)]


def part(build, **changes):
    return lambda seed: build(seed, **changes)


ROWS = TEXT["input_ids"]
TYPED = TEXT | {"token_type_ids": ROWS}
PLACED = TEXT | {"position_ids": ROWS}
LABELLED = TEXT | {"labels": ROWS}
PAIRED = {"input_ids": {0: BATCH, 1: "source"}, "attention_mask": {0: BATCH, 1: "source"},
          "decoder_input_ids": {0: BATCH, 1: "target"}}
NO_KEY_BIAS = ("*k_proj.bias", "*key.bias")      # see parameters_without_effect
EVERY_EXPERT = ((4, 12), (2, 7))                # enough tokens that the router chooses each expert

MODELS = [
    *pair("gpt2", gpt2, Logits, TEXT, ["logits"], text(257)),
    *pair("llama", llama, Logits, TEXT, ["logits"], text(211)),
    *pair("mistral", mistral, Logits, TEXT, ["logits"], text(300)),
    *pair("qwen2", qwen2, Logits, TEXT, ["logits"], text(255)),
    *pair("opt", opt, Logits, TEXT, ["logits"], text(301), no_effect=NO_KEY_BIAS),
    *pair("bert", bert, Encoder, TYPED, ["last_hidden_state", "pooler_output"], text_and_types(263), no_effect=NO_KEY_BIAS),
    *pair("t5", t5, EncoderDecoder, PAIRED, ["logits"], source_and_target(259)),
    *pair("vit", vit, Image, {"pixel_values": {0: BATCH}}, ["logits", "last_hidden_state"], images(3, 24, 36),
          no_effect=NO_KEY_BIAS),

    Model("llama-past-opt18", part(llama, vocab_size=209, hidden_size=60, num_attention_heads=6, num_key_value_heads=2,
                                   intermediate_size=132),
          WithPast, past(2), present(2), text_and_past(209, 2, 2, 10), optimum("text-generation-with-past", 18)),
    Model("gpt2-past-opt18", part(gpt2, vocab_size=264, n_embd=66, n_inner=150),
          WithPast, past(2), present(2), text_and_past(264, 2, 6, 11), optimum("text-generation-with-past", 18)),

    *pair("llama-loss", part(llama, vocab_size=252, hidden_size=72, num_attention_heads=6, num_key_value_heads=3,
                             intermediate_size=120),
          Loss, LABELLED, ["loss"], text_and_labels(252)),
    *pair("llama-nll", part(llama, vocab_size=205, hidden_size=72, num_attention_heads=6, num_key_value_heads=3,
                            intermediate_size=120, tie_word_embeddings=True),
          WrittenOutLoss, LABELLED, ["loss", "losses"], text_and_labels(205)),
    *pair("llama-leftpad", part(llama, vocab_size=253, hidden_size=66, num_attention_heads=6, num_key_value_heads=6, head_dim=10,
                                intermediate_size=132),
          LogitsWherePresent, PLACED, ["logits"], text_left_padded(253)),
]


def again(name, export):
    """NAME-EXPORTER: a model of the list by one more exporter."""
    return dataclasses.replace(next(m for m in MODELS if m.name.rsplit("-", 1)[0] == name.rsplit("-", 1)[0]), name=name, export=export)


MODELS += [
    Model("mixtral-ts17", mixtral, Logits, TEXT, ["logits"], text(107, EVERY_EXPERT), torchscript(17)),
    Model("gptoss-dy18", gpt_oss, Logits, TEXT, ["logits"], text(103, EVERY_EXPERT), dynamo(18)),
]

MODELS += [
    again("gpt2-ts11", torchscript(11)),        # the oldest forms: axes as attributes, LayerNormalization written out
    again("bert-dy23", dynamo(23)),             # the newest: Attention, RotaryEmbedding, RMSNormalization, Gelu
    again("llama-dy23", dynamo(23)),
    again("llama-leftpad-dy23", dynamo(23)),
]


MODELS += [        # smaller ones, by one exporter each, for what the others do not have
    Model("falcon-ts17", falcon, Logits, TEXT, ["logits"], text(131), torchscript(17)),
    Model("bloom-dy23", bloom, Logits, TEXT, ["logits"], text(127), dynamo(23), no_effect=("*query_key_value.bias",)),
    Model("neox-past-opt18", neox, WithPast, past(2), present(2), text_and_past(110, 2, 6, 8), optimum("text-generation-with-past", 18)),
    Model("phi3-dy18", phi3, Logits, TEXT, ["logits"], text(113), dynamo(18)),
    Model("gemma3-dy23", gemma3, Logits, TEXT, ["logits"], text(109), dynamo(23)),
    Model("qwen3-dy23", qwen3, Logits, TEXT, ["logits"], text(115), dynamo(23)),
    Model("albert-dy23", albert, Hidden, TEXT, ["last_hidden_state"], text(120), dynamo(23), no_effect=("*key.bias", "*pooler*")),
    Model("distilbert-ts17", distilbert, Hidden, TEXT, ["last_hidden_state"], text(120), torchscript(17), no_effect=("*k_lin.bias",)),
    Model("bart-ts17", bart, EncoderDecoder, PAIRED, ["logits"], source_and_target(105), torchscript(17), no_effect=NO_KEY_BIAS),
    Model("whisper-encoder-ts17", whisper, SpeechEncoder, {"input_features": {0: BATCH}}, ["last_hidden_state"], sound(12, 24), torchscript(17),
          no_effect=NO_KEY_BIAS),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    chosen = [m for m in MODELS if any(fnmatch.fnmatchcase(m.name, p) for p in arguments.patterns)]
    if not chosen:
        sys.exit("no model has such a name; --list shows them")
    failed = []
    for model in chosen:
        if arguments.list:
            print(model.name)
            continue
        try:
            if not arguments.check:
                make(model)
            check(model.name)
        except Exception as error:
            failed.append(model.name)
            print(f"{model.name}: {type(error).__name__}: {str(error)[:400]}", file=sys.stderr, flush=True)
    if failed:
        sys.exit("failed: " + " ".join(failed))


if __name__ == "__main__":
    main()
