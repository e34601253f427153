"""plan_json.py SCHEMA PLAN.json NAME - checks a document against the schema, and against itself: shards cover their weight, parts are in
order, and on several ranks the linear layers of these models are split as their blocks want it."""
import json
import sys

import jsonschema

schema, document, name = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), sys.argv[3]
jsonschema.validate(document, schema)
ranks = document["mesh"]["ranks"]
faults = []

for p in document["params"]:
    if p["axis"] is None:
        continue
    extent = p["shape"][p["axis"]]
    held = set()
    if len(p["ranks"]) != ranks:
        faults.append(f"{p['name']}: {len(p['ranks'])} ranks")
    for intervals in p["ranks"]:
        for lo, hi in intervals:
            if not 0 <= lo < hi <= extent:
                faults.append(f"{p['name']}: interval [{lo}, {hi}) of {extent}")
            held.update(range(lo, hi))
    if len(held) != extent:
        faults.append(f"{p['name']}: ranks hold {len(held)} of {extent} along axis {p['axis']}")

for layer in document["layers"]:  # the plan is the best: whatever a layer could have been costs as much or more
    for a in layer["alternatives"]:
        if "bytes" in a and (a["bytes"], a["seconds"], a["collectives"]) < (0, 0, 0):
            faults.append(f"{layer['node']}: cheaper as {a['style']}: {a}")
if ranks > 1 and not any("bytes" in a for layer in document["layers"] for a in layer["alternatives"]):
    faults.append("no alternative has a price")

styles = {}
for layer in document["layers"]:
    styles[layer["style"]] = styles.get(layer["style"], 0) + 1
if ranks > 1:
    for style in ("column", "row"):
        if style not in styles:
            faults.append(f"no {style}-parallel layer on {ranks} ranks: {styles}")
    if not any(c["kind"] == "all_reduce" for c in document["collectives"]):
        faults.append("nothing is reduced")
else:
    if document["collectives"]:
        faults.append("one rank exchanges")
if len(document["memory"]) != ranks:
    faults.append("memory is not given per rank")

for fault in faults:
    print(f"FAILED: {name} on {ranks} ranks: {fault}")
sys.exit(bool(faults))
