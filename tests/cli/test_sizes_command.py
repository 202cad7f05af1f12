"""`python -m hwsim sizes`: every stored byte is in one row, and the rows add up to the files."""

from __future__ import annotations

import json

from safetensors import safe_open

OK, USER_ERROR = 0, 2


def test_every_byte_of_the_weights_file_is_listed_once(hwsim, export, tmp_path):
    file = tmp_path / "sizes.json"
    done = hwsim("sizes", export, "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    sizes = json.loads(file.read_text(encoding="utf-8"))

    weights = export / "weights.safetensors"
    with safe_open(weights, "np") as stored:
        on_disk = {name: stored.get_tensor(name).nbytes for name in stored.keys()}  # noqa: SIM118
    assert {row["name"]: row["bytes"] for row in sizes["constants"]} == on_disk
    raw = weights.read_bytes()
    assert sizes["header_bytes"] == 8 + int.from_bytes(raw[:8], "little")
    assert sum(on_disk.values()) + sizes["header_bytes"] == len(raw)

    assert sizes["file_bytes"] == {p.name: p.stat().st_size for p in export.iterdir()}
    assert sizes["folder_bytes"] == sum(sizes["file_bytes"].values())
    names = ("graph.json", "weights.safetensors", "manifest.json")
    assert sizes["model_bytes"] == sum(sizes["file_bytes"][n] for n in names)
    assert sizes["folder_bytes"] > sizes["model_bytes"]  # there are samples

    nodes = json.loads((export / "graph.json").read_text(encoding="utf-8"))["nodes"]
    described = {
        f"{node['name']}.{role}": (node["op"], role, constant["type"], constant["shape"])
        for node in nodes
        for role, constant in node.get("constants", {}).items()
    }
    listed = {r["name"]: (r["op"], r["role"], r["format"], r["shape"]) for r in sizes["constants"]}
    assert listed == described

    for name in ("bytes", "elements", "constants"):
        assert all(kind[name] > 0 for kind in sizes["kinds"])
    assert sum(kind["bytes"] for kind in sizes["kinds"]) == sum(on_disk.values())
    assert sum(kind["constants"] for kind in sizes["kinds"]) == len(on_disk)
    ternary = next(kind for kind in sizes["kinds"] if kind["format"] == "TERNARY")
    assert ternary["elements"] / 5 <= ternary["bytes"] < ternary["elements"] / 4
    assert f"{sizes['model_bytes']:,} =" in done.stdout
    assert ternary["op"] in done.stdout


def test_a_folder_that_is_no_export(hwsim, tmp_path):
    done = hwsim("sizes", tmp_path)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert done.stderr == (
        f"{tmp_path / 'manifest.json'}: no such file; is {tmp_path} an exported model?\n"
    )


def test_a_folder_around_an_export_leads_to_it(hwsim, export, tmp_path):
    (tmp_path / "model").symlink_to(export)
    done = hwsim("sizes", tmp_path)
    assert done.returncode == USER_ERROR
    assert done.stderr.endswith(f"an exported model?; did you mean {tmp_path / 'model'}?\n")
