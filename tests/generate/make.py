#!/usr/bin/env python3
"""Makes tests/generate/t5: a small random encoder and decoder as Optimum exports them (encoder, decoder, decoder with past), and what ONNX Runtime writes greedily
with the encoder and the decoder without past, for a batch of two sources: `source target`, a line each.

    python tests/generate/make.py

Nobody needs this to build or to test. PyPI: as tests/models/export.py.
"""
import pathlib
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import export      # sets the environment first
import numpy as np
import onnxruntime
import transformers as hf
from optimum.exporters.onnx import onnx_export_from_model

SOURCES = [[9, 33, 2, 57, 41, 8, 1], [5, 6, 12, 30, 44, 19, 1]]
WRITTEN = 14


def main():
    to = HERE / "t5"
    model = export.randomize(hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=1, num_decoder_layers=2, num_heads=4, decoder_start_token_id=0, eos_token_id=1,
        pad_token_id=0, tie_word_embeddings=False)), 5)
    with tempfile.TemporaryDirectory() as at:
        onnx_export_from_model(model, at, opset=18, monolith=False, task="text2text-generation-with-past", do_validation=False)
        to.mkdir(exist_ok=True)
        for name in ("encoder_model", "decoder_model", "decoder_with_past_model"):
            shutil.copy(f"{at}/{name}.onnx", to)
    source, mask = np.array(SOURCES), np.ones((2, len(SOURCES[0])), np.int64)
    hidden = onnxruntime.InferenceSession(to / "encoder_model.onnx").run(None, {"input_ids": source, "attention_mask": mask})[0]
    decoder = onnxruntime.InferenceSession(to / "decoder_model.onnx")
    text = np.zeros((2, 1), np.int64)
    for _ in range(WRITTEN):
        given = {"input_ids": text, "encoder_hidden_states": hidden, "encoder_attention_mask": mask}
        logits = decoder.run(["logits"], given)[0][:, -1].astype(np.float64)
        best = np.sort(logits)[:, -2:]
        assert (best[:, 1] - best[:, 0] > 1e-3 * np.ptp(logits)).all(), "a token is in doubt: take another seed"
        text = np.concatenate([text, logits.argmax(-1)[:, None]], 1)
    (to / "greedy.txt").write_text("".join(",".join(map(str, s)) + " " + ",".join(map(str, t[1:])) + "\n" for s, t in zip(SOURCES, text)))


if __name__ == "__main__":
    main()
