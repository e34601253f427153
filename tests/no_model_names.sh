#!/bin/sh
# tests/no_model_names.sh ROOT - fails when tpc knows a model by name: an architecture, or a name that its weights bear.
# tests/no_model_names.sh --self-test - plants such names and expects each to be reported.
#
# In the rooms behind the frontend nothing may mention one, comments included; in frontend/onnx no string may (its
# comments may say which exporter writes what).
set -eu

names='llama|llama2|llama3|mistral|mixtral|qwen|qwen2|qwen3|gemma|phi3|gpt|gpt2|gpt_neox|gptneox|gptj|bert|roberta|distilbert
minilm|t5|mt5|vit|deit|opt125m|falcon|whisper|deepseek|mpt|starcoder|chatglm|huggingface|charlm
q_proj|k_proj|v_proj|o_proj|qkv_proj|out_proj|gate_proj|up_proj|down_proj|gate_up_proj|c_attn|c_proj|c_fc|lm_head
embed_tokens|embed_positions|embed_out|wte|wpe|self_attn|self_attention|encoder_attn|query_key_value|dense_h_to_4h|dense_4h_to_h
word_embeddings|fc1|fc2|fc_in|fc_out|input_layernorm|post_attention_layernorm|inv_freq|rotary_emb'

check() { # ROOT
    cd "$1"
    find ir passes solver codegen runtime frontend/onnx -type f \( -name '*.[ch]' -o -name '*.def' \) 2>/dev/null | sort |
        NAMES=$(echo "$names" | tr '\n' '|') xargs awk '
        BEGIN {
            count = split(ENVIRON["NAMES"], list, "|")
            for (i = 1; i <= count; i++)
                if (list[i] != "")
                    forbidden[list[i]] = 1
        }
        # What stands in double quotes.
        function strings(line,    found, rest) {
            rest = line
            while (match(rest, /"([^"\\]|\\.)*"/)) {
                found = found " " substr(rest, RSTART, RLENGTH)
                rest = substr(rest, RSTART + RLENGTH)
            }
            return found
        }
        {
            text = tolower(FILENAME ~ /^frontend\// ? strings($0) : $0)
            count = split(text, word, /[^a-z0-9_]+/)
            for (i = 1; i <= count; i++)
                if (word[i] in forbidden) {
                    printf "%s:%d: names a model: \"%s\": %s\n", FILENAME, FNR, word[i], $0
                    failures++
                }
        }
        END { if (NR == 0) { print "no sources found"; exit 2 } exit failures > 0 }'
}

self_test() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/ir "$root"/solver "$root"/frontend/onnx
    expect() { # pass|fail FILE TEXT
        printf '%s\n' "$3" >"$root/$2"
        if (check "$root") >"$root/report" 2>&1; then result=pass; else result=fail; fi
        rm "$root/$2"
        [ $result = "$1" ] && return
        echo "expected '$3' in $2 to $1"
        cat "$root/report"
        exit 1
    }
    expect pass ir/a.c 'int option = invite(bertha);'
    expect fail ir/a.c 'if (!strcmp(name, "q_proj"))'
    expect fail ir/a.c 'if (strstr(name, ".q_proj.weight"))'
    expect fail solver/a.h '/* as in Llama */'
    expect fail solver/a.def 'ROW(lm_head, 1)'
    expect pass frontend/onnx/a.c '/* GPT2 writes this so */ accept("Conv");'
    expect fail frontend/onnx/a.c 'if (!strcmp(name, "transformer.wte.weight"))'
    echo "all planted names were reported"
}

case ${1-} in
--self-test) self_test ;;
"") echo "usage: no_model_names.sh ROOT | --self-test" >&2; exit 64 ;;
*) check "$1" ;;
esac
