#!/usr/bin/env python3
"""Makes the test models NAME-{encoder,decoder,past}-opt18, and tests/cli/merged: what Optimum writes for an encoder-decoder, each of its files a
folder. The merged decoder is an `If` on the input use_cache_branch around the other two, whose branches share weights and names.

    python tests/models/pairs.py

Nobody needs this to build or to test: the folders are committed, in the layout that export.py describes. Expected outputs are ONNX Runtime's.
PyPI: as export.py.
"""
import logging
import pathlib
import shutil
import tempfile
import warnings
import zlib

import export      # next to this file: sets the environment first
import numpy as np
import onnx
import onnxruntime
import torch
import transformers as hf

HERE = pathlib.Path(__file__).resolve().parent
FILES = {"encoder": "encoder_model", "decoder": "decoder_model", "past": "decoder_with_past_model", "merged": "decoder_model_merged"}
SIZES = {"batch_size": 2, "encoder_sequence_length": 7, "decoder_sequence_length": 3, "past_decoder_sequence_length": 0}
LATER = SIZES | {"batch_size": 3, "encoder_sequence_length": 5, "decoder_sequence_length": 1, "past_decoder_sequence_length": 4}


def t5(seed):
    return export.randomize(hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=101, d_model=40, d_kv=6, num_heads=4, d_ff=66, num_layers=1, num_decoder_layers=1, relative_attention_num_buckets=8,
        relative_attention_max_distance=16, decoder_start_token_id=0)), seed)


def feed(value, sizes, cached, random):
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]
    if kind == np.bool_:
        return np.full(shape, cached)
    if value.name.endswith("attention_mask"):
        return np.arange(shape[1])[None] < np.asarray([shape[1] - 2 * row for row in range(shape[0])])[:, None].astype(kind) + 0
    if kind == np.int64:
        return random.integers(3, 101, shape)
    return random.standard_normal(shape).astype(kind)


def write(name, proto, runs):
    folder = HERE / name if "merged" not in name else HERE.parent / "cli" / "merged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    onnx.save(proto, folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(zlib.crc32(name.encode()))
    for number, (sizes, cached) in enumerate(runs):
        given = {v.name: feed(v, sizes, cached, random).astype(onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type))
                 for v in proto.graph.input}
        (folder / f"test_data_set_{number}").mkdir()
        for k, v in enumerate(proto.graph.input):
            export.save(folder, number, "input", k, v.name, given[v.name])
        for k, (v, got) in enumerate(zip(proto.graph.output, session.run(None, given))):
            export.save(folder, number, "output", k, v.name, got)
    print(name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024, "KB", flush=True)


def main():
    from optimum.exporters.onnx import main_export
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as at, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        t5(zlib.crc32(b"t5")).save_pretrained(at + "/in")
        main_export(at + "/in", output=at + "/out", task="text2text-generation-with-past", opset=18, do_validation=False)
        for kind, file in FILES.items():
            runs = {"encoder": [(SIZES, False), (LATER, False)], "decoder": [(SIZES, False)], "past": [(LATER, True)],
                    "merged": [(SIZES, False), (LATER, True)]}[kind]
            write(f"t5-{kind}-opt18", onnx.load(f"{at}/out/{file}.onnx"), runs)


if __name__ == "__main__":
    main()
