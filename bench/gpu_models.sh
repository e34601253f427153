#!/bin/bash
# bench/gpu_models.sh DIR [PYTHON] - the models of scripts/gpu-check: DIR/NAME/model.onnx, without weights, and DIR/NAME/about, which says what gpu-check has to know:
#
#   weights FILE BYTES TYPE       to be written where it is measured
#   sizes BATCH SEQUENCE PAST     names of the extents
#   torch KEY=VALUE...            the same model for bench/torch_peer.py
#
# PYTHON: one with the packages of bench/make_model.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
to=$1 python=${2-python3}
model() { # model NAME TYPE LAYERS HIDDEN HEADS KV_HEADS FFN
    "$python" "$here/make_model.py" "$to/$1" --graph-only $([ "$2" = bf16 ] && echo --bf16) --layers "$3" --hidden "$4" --heads "$5" --kv-heads "$6" --ffn "$7"
    {
        echo "weights model.onnx_data $(stat -c %s "$to/$1/model.onnx_data") $2"
        echo "sizes batch sequence past"
        echo "torch type=$2 layers=$3 hidden=$4 heads=$5 kv_heads=$6 ffn=$7 vocab=32000"
    } >"$to/$1/about"
    rm "$to/$1/model.onnx_data"
}
model llama-f32 f32 4 2048 16 16 5632
model llama-bf16 bf16 4 2048 16 16 5632
model llama3-bf16 bf16 8 4096 32 8 14336
