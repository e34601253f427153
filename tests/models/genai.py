#!/usr/bin/env python3
"""Makes the test models NAME-genai-{fp32,int4}: the graphs of ONNX Runtime's GenAI builder, with grouped attention and its caches in one
operator, weights in a file beside the model, and (int4) weights of four bits in blocks.

    PYTHONPATH=... python tests/models/genai.py [PATTERN...]

Nobody needs this to build or to test: the folders are committed, in the layout that export.py describes. Expected outputs of the fp32 models
are PyTorch's in float64, each row for itself and without padding; ONNX Runtime agrees to 1e-5 of the largest magnitude. Those of the int4 models
are ONNX Runtime's on float activations (accuracy_level, which lets it round activations to eight bits, taken away).

PyPI: as export.py, and onnxruntime-genai==0.9.2 (later ones want a newer transformers); of that only the Python files are needed.
"""
import fnmatch
import pathlib
import shutil
import sys
import tempfile
import zlib

import export      # next to this file: sets the environment first
import numpy as np
import onnx
import onnxruntime
import torch
import transformers as hf

HERE = pathlib.Path(__file__).resolve().parent
SETS = (([0, 0], 7), ([5], 3), ([6, 2, 4], 1))     # tokens that each row has before, and how many are new


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=211, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, head_dim=16,
        intermediate_size=112, max_position_embeddings=48, attn_implementation="eager"))


def qwen3():
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(
        vocab_size=190, hidden_size=96, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
        intermediate_size=128, max_position_embeddings=48, tie_word_embeddings=False, attn_implementation="eager"))


def gemma2():      # which layers have a window: as the builder takes it, not as the model does
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(
        vocab_size=170, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=4, layer_types=["full_attention", "sliding_attention"],
        query_pre_attn_scalar=16, intermediate_size=96, max_position_embeddings=48, attn_implementation="eager"))


def tokenizer(vocabulary, folder):
    from tokenizers import Tokenizer, models
    words = Tokenizer(models.WordLevel({f"<{i}>": i for i in range(vocabulary)}, unk_token="<0>"))
    hf.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<0>", eos_token="<1>", bos_token="<2>", pad_token="<3>").save_pretrained(folder)


def build(model, precision, folder):
    from onnxruntime_genai.models.builder import create_model
    with tempfile.TemporaryDirectory() as at:
        model.generation_config = hf.GenerationConfig(bos_token_id=2, eos_token_id=1, pad_token_id=3)
        model.save_pretrained(at + "/in")
        tokenizer(model.config.vocab_size, at + "/in")
        create_model("", at + "/in", at + "/out", precision, "cpu", at + "/cache")
        proto = onnx.load(at + "/out/model.onnx")
    for node in proto.graph.node:
        del node.metadata_props[:]
    kept = onnx.ModelProto.FromString(proto.SerializeToString())     # save moves the weights out
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=256)
    return kept


def feeds(config, before, length, generator):
    batch, past = len(before), max(before)
    given = {"input_ids": export.tokens(generator, config.vocab_size, batch, length).numpy(),
             "attention_mask": (np.arange(past + length)[None] < np.asarray(before)[:, None] + length).astype(np.int64)}
    for layer in range(config.num_hidden_layers):
        for what in ("key", "value"):
            x = torch.randn(batch, config.num_key_value_heads, past, config.head_dim, generator=generator).numpy()
            for row, used in enumerate(before):
                x[row, :, used:] = 0
            given[f"past_key_values.{layer}.{what}"] = x
    return given


def by_rows(model, given, before, length):
    """Each row of the batch for itself, in float64; what lies behind a row's last token is zero."""
    config, rows = model.config, []
    total = max(before) + length
    for row, used in enumerate(before):
        cache = [torch.from_numpy(given[f"past_key_values.{layer}.{what}"][row:row + 1, :, :used])
                 for layer in range(config.num_hidden_layers) for what in ("key", "value")]
        outputs = export.reference(export.WithPast(model), (torch.from_numpy(given["input_ids"][row:row + 1]), torch.ones(1, used + length).long(),
                                                           torch.arange(used, used + length)[None], *cache))
        rows.append([outputs[0]] + [torch.nn.functional.pad(x, (0, 0, 0, total - x.shape[2])) for x in outputs[1:]])
    names = ["logits"] + [f"present.{layer}.{what}" for layer in range(config.num_hidden_layers) for what in ("key", "value")]
    return dict(zip(names, (torch.cat(parts).numpy().astype(np.float32) for parts in zip(*rows))))


def run(proto, given):
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    for node in proto.graph.node:
        for a in [a for a in node.attribute if a.name == "accuracy_level"]:
            node.attribute.remove(a)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    given = {i.name: given[i.name] for i in session.get_inputs()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, given)))


def make(name, builder, precision):
    seed = zlib.crc32(name.split("-")[0].encode())
    torch.manual_seed(seed)
    model = export.randomize(builder().eval(), seed)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    proto, generator, worst = build(model, precision, folder), torch.Generator().manual_seed(seed + 1), 0.0
    for number, (before, length) in enumerate(SETS):
        given = feeds(model.config, before, length, generator)
        if "position_ids" in [i.name for i in proto.graph.input]:
            given["position_ids"] = np.asarray(before)[:, None] + np.arange(length)[None]
        got = run(proto, given)
        expected = by_rows(model, given, before, length) if precision == "fp32" else got
        (folder / f"test_data_set_{number}").mkdir()
        for k, i in enumerate(proto.graph.input):
            export.save(folder, number, "input", k, i.name, given[i.name])
        for k, o in enumerate(proto.graph.output):
            assert got[o.name].shape == expected[o.name].shape and np.isfinite(got[o.name]).all(), (name, o.name)
            error = np.abs(got[o.name] - expected[o.name]).max() / np.abs(expected[o.name]).max()
            assert error < export.TOLERANCE, (name, number, o.name, error)
            worst = max(worst, error)
            export.save(folder, number, "output", k, o.name, expected[o.name])
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name:22} {size // 1024} KB, {len(proto.graph.node)} nodes, error {worst:.1e}, logits std {got['logits'].std():.2f}", flush=True)


MODELS = {
    "llama-genai-fp32": (llama, "fp32"), "llama-genai-int4": (llama, "int4"),
    "qwen3-genai-fp32": (qwen3, "fp32"), "qwen3-genai-int4": (qwen3, "int4"),
    "gemma2-genai-fp32": (gemma2, "fp32"), "gemma2-genai-int4": (gemma2, "int4"),
}

if __name__ == "__main__":
    for model_name, (model_builder, how) in MODELS.items():
        if any(fnmatch.fnmatchcase(model_name, p) for p in sys.argv[1:] or ["*"]):
            make(model_name, model_builder, how)
