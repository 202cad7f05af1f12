"""`python -m hwsim decode` as a user meets it, and the line about decoding of `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.graph.decode_view import caches
from hwsim.graph.serialize import load

OK, UNEQUAL, USER_ERROR = 0, 1, 2
ON = ("--machine", "int8_edge")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 1-bit GPT-2 for up to 11 tokens, with 12 samples of 2 to 9."""
    from lowbit_students import build

    folder = tmp_path_factory.mktemp("decode") / "texts"
    build("gpt2", "bit_w1a1", folder)
    return folder


def test_decode_writes_tokens_costs_and_cache(hwsim, text_model, tmp_path):
    file = tmp_path / "new" / "decode.json"
    asked = ("--prompt-ids", "5,0,29", "--tokens", 4)
    done = hwsim("decode", text_model, *ON, *asked, "--json", file)
    assert (done.returncode, done.stderr) == (OK, "")
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["schema_version"] == "hwsim/decode/1"
    assert result["prompt"] == [5, 0, 29]
    assert len(result["tokens"]) == len(result["logit_codes"]) == 4
    assert [s["position"] for s in result["steps"]] == [3, 4, 5]
    for step in result["steps"]:
        assert step["cycles"] > 0
        assert 0 < step["energy_pj"]["low"] < step["energy_pj"]["nominal"]
    # two layers of two heads: a word a key and token, a word a value's channel
    assert [s["cache_bytes"] for s in result["steps"]] == [2 * 2 * (8 * n + 80) for n in (3, 4, 5)]
    assert result["cache"]["memory"] == "dram"
    assert result["cache"]["bytes"] == 2 * 2 * (8 * 6 + 80)
    manifest = json.loads((text_model / "manifest.json").read_text(encoding="utf-8"))
    assert result["hashes"]["model"] == manifest["model_sha256"]
    assert f"3 prompt tokens, 4 generated: {' '.join(map(str, result['tokens']))}" in done.stdout
    assert "time to first token, steady" in done.stdout
    assert "key-value cache in DRAM" in done.stdout
    assert "not modelled:" in done.stdout


def test_a_stored_sample_is_a_prompt(hwsim, text_model, tmp_path):
    file = tmp_path / "decode.json"
    cut = ("--sample", 0, "--prompt-length", 5, "--tokens", 1)
    assert hwsim("decode", text_model, *ON, *cut, "--json", file).returncode == OK
    result = json.loads(file.read_text(encoding="utf-8"))
    samples = load(text_model).samples
    assert samples is not None
    assert result["prompt"] == samples.inputs["input_ids"][0][:5].tolist()
    assert result["steps"] == []
    assert result["tokens_per_s"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "a prompt must come from one of --prompt-ids and --sample"),
        (("--sample", 0, "--prompt-ids", "1"), "one of --prompt-ids and --sample"),
        (("--prompt-ids", "1,x"), "must be whole numbers separated by commas, as 15,2,7, not '1,x'"),
        (("--prompt-ids", "1,30"), "prompt: token ids must be 0 to 29, not 30"),
        (("--prompt-ids", "1", "--prompt-length", 1), "--prompt-ids are taken whole"),
        (("--prompt-ids", "1,2,3"), "leaves room for 9 new ones, not 32"),
        (("--sample", 12), "has samples 0 to 11, not 12"),
    ],
)  # fmt: skip
def test_a_prompt_that_is_none_ends_with_two(hwsim, text_model, arguments, text):
    done = hwsim("decode", text_model, *ON, *arguments)
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_model_that_is_not_causal_ends_with_two(hwsim, export):
    done = hwsim("decode", export, *ON, "--prompt-ids", "1,2")
    assert (done.returncode, done.stdout) == (USER_ERROR, "")
    assert "decoding needs a causal model" in done.stderr
    assert "decode:" not in hwsim("verify", export, *ON, "--samples", 1).stdout


def test_verify_says_that_decoding_is_equal_or_not(hwsim, text_model):
    done = hwsim("verify", text_model, *ON)
    assert done.returncode == OK
    assert "decode: 0 unequal of " in done.stdout
    assert " 9 tokens one by one" in done.stdout
    key = caches(load(text_model).graph)[0].tensor
    flipped = hwsim("verify", text_model, *ON, "--inject", f"cache:{key}:0:0")
    assert (flipped.returncode, flipped.stderr) == (UNEQUAL, "")
    assert "rung B: 0 unequal" in flipped.stdout
    assert f"  {key}.extended (append): 8 elements differ, first at token 1" in flipped.stdout
