"""variants.py TPC MODELS - the exporters' files of one model give the same plan, but for names: the same layers in the same styles, cut at the same
places, in the same order, and the same collectives."""
import collections
import json
import os
import re
import subprocess
import sys

tpc, models = sys.argv[1:]
families = collections.defaultdict(list)
for name in sorted(os.listdir(models)):
    match = re.fullmatch(r"(.*)-(ts|dy)(\d+)", name)
    if match:
        families[match[1]].append(name)


def plan(name, ranks):
    subprocess.run([tpc, "compile", f"{models}/{name}/model.onnx", "--tp", str(ranks), "-o", "variant.plan"], check=True)
    document = json.loads(subprocess.run([tpc, "dump", "variant.plan", "--json"], check=True, capture_output=True).stdout)
    layers = [(layer["style"], layer.get("placement")) for layer in document["layers"]]
    exchanged = [(c["kind"], c["bytes"]) for c in document["collectives"]]
    return layers, exchanged


compared = failed = 0
for family, names in families.items():
    for ranks in (2, 3, 4, 8):
        first = plan(names[0], ranks)
        for other in names[1:]:
            compared += 1
            if plan(other, ranks) == first:
                continue
            failed += 1
            print(f"FAILED: {names[0]} and {other} differ on {ranks} ranks:")
            for what, a, b in zip(("layers", "collectives"), first, plan(other, ranks)):
                if a != b:
                    print(f"    {what}: {[x for x in a if x not in b]} and {[x for x in b if x not in a]}; {len(a)} and {len(b)}")
print(f"{compared} pairs compared, {failed} differ")
sys.exit(bool(failed) or not compared)
