"""The report's page in a real browser, from disk: what hover, filters, panel and keyboard show, and that nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Watched, chromium
from playwright.sync_api import Browser, Page

from studies import synthetic
from studies.page import page_data
from studies.plan import load_plan
from studies.quantities import judge
from studies.report import build_report
from studies.table import load_results
from studies.text import SPACE, si

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

STUDENTS = {"W8A8": 0.975, "W2A8 KD": 0.962, "W2A8 TI-G": 0.969}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = synthetic.make_folder(tmp_path_factory.mktemp("study") / "d", (0, 1), STUDENTS)
    synthetic.add_operators(made)
    build_report(made)
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    return page_data(judge(load_results(folder)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page of which a test must find no complaint and no request."""
    with browser.new_context() as context:
        opened = Watched(context.new_page())
        yield opened
        assert opened.requests == []
        assert opened.faults == []


@pytest.fixture
def page(watched: Watched, folder: Path) -> Page:
    return watched.open(folder / "report.html")


def text_of(page: Page, selector: str) -> str:
    return (page.text_content(selector) or "").replace("\N{NO-BREAK SPACE}", " ")


def drawn(page: Page) -> set[int]:
    found = page.eval_on_selector_all("#plot [data-point]", "all => all.map(e => +e.dataset.point)")
    return set(found)


def a_point_of(data: dict[str, Any], standing: str) -> int:
    places = list(data["standing_text"])
    return int(data["points"]["standing"]["energy_pj"].index(places.index(standing)))


def mark(index: int) -> str:
    return f"[data-point='{index}'] path:last-child"  # the bars are in front of it


def test_a_request_and_an_error_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://192.0.2.1/x.png'><script>nothing.here()</script>")
    with browser.new_context() as context:
        opened = Watched(context.new_page())
        opened.open(path)
        assert opened.requests == ["http://192.0.2.1/x.png"]
        assert any("nothing is not defined" in fault for fault in opened.faults)


def test_hover_shows_the_numbers_of_a_point(page: Page, data: dict[str, Any]) -> None:
    assert page.is_hidden("#tip")
    index = a_point_of(data, "front")
    page.hover(mark(index), force=True)  # the nearest mark is meant, whatever lies over it
    machine = data["machines"][data["points"]["machine"][index]]["name"]
    student = data["students"][data["points"]["student"][index]]["name"]
    shown = text_of(page, "#tip")
    assert f"{student} on {machine}" in shown
    energy = next(q for q in data["quantities"] if q["key"] == "energy_pj")
    joules = [si(energy[end][index] * 1e-12, "J") for end in ("value", "low", "high")]
    assert "Energy{} ({} to {})".format(*joules).replace(SPACE, " ") in shown
    assert "on the front" in shown
    page.keyboard.press("Escape")


def test_filters_hide_points(page: Page, data: dict[str, Any]) -> None:
    everything = drawn(page)
    assert everything == set(range(len(data["points"]["student"])))
    page.click("[data-filter='student'] label:nth-of-type(2) input")
    left = {i for i, s in enumerate(data["points"]["student"]) if s != 1}
    assert drawn(page) == left != everything
    page.click("[data-filter='family'] label:nth-of-type(1) input")
    left = {i for i in left if data["machines"][data["points"]["machine"][i]]["family"] != 0}
    assert drawn(page) == left
    assert text_of(page, "#tally").startswith(f"{len(left)} of {len(everything)} points")


def test_axes_and_their_scales_can_be_chosen(page: Page, data: dict[str, Any]) -> None:
    def choose(axis: str, key: str) -> None:
        page.select_option(f"#axis-{axis}", key)

    area = next(q for q in data["quantities"] if q["key"] == "area_um2")
    choose("x", "area_um2")
    without = {i for i, value in enumerate(area["value"]) if value is None}
    assert without, "the study needs points without an area"
    assert drawn(page) == set(range(len(area["value"]))) - without
    assert f"{len(without)} have no such number" in text_of(page, "#tally")
    choose("x", "weight_bytes")
    assert "Weights (KiB)" in text_of(page, "#plot")

    def ticks() -> list[str]:
        return page.locator("#plot text").all_text_contents()

    logarithmic = ticks()
    page.click("#log-x")
    assert ticks() != logarithmic


@pytest.mark.parametrize("by_key", [False, True])
def test_a_point_opens_with_the_operators_of_its_node(
    page: Page, folder: Path, data: dict[str, Any], by_key: bool
) -> None:
    if by_key:
        page.evaluate("document.getElementById('plot').focus({focusVisible: true})")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#tip")
        assert text_of(page, "#said") != ""
        page.keyboard.press("Enter")
    else:
        page.click(mark(a_point_of(data, "front")), force=True)
    index = page.evaluate("+document.getElementById('panel').dataset.point")
    student = data["students"][data["points"]["student"][index]]["name"]
    machine = data["machines"][data["points"]["machine"][index]]["name"]
    assert text_of(page, "#panel-title") == f"{student} on {machine}"
    node = next(
        n
        for n in load_plan(folder).nodes
        if n.tags.get("machine") == machine and n.tags["student"] == student
    )
    kept = json.loads((folder / "nodes" / node.folder_name / "operators.json").read_text())
    rows = page.evaluate(
        "[...document.querySelectorAll('#panel table')[0].querySelectorAll('tbody tr')]"
        ".map(r => [...r.children].map(c => c.textContent.replaceAll('\\u00a0', ' ')))"
    )
    total = sum(o["energy_pj"] for o in kept["operators"])
    by_name = {row[0]: row for row in rows}
    fc1 = [o for o in kept["operators"] if o["node"].endswith("fc1.acc")]
    pj = sum(o["energy_pj"] for o in fc1)
    line = by_name["vit.layers.*.mlp.fc1.acc"]  # equal operators of three layers are one line
    assert line[2] == "3"
    unit = f"{pj / 1e3:.0f} nJ" if pj < 0.9995e6 else f"{pj / 1e6:.2f} µJ"
    assert line[3] == f"{unit}{100 * pj / total:.1f} %"
    assert line[4].startswith(f"{sum(o['cycles'] for o in fc1):,}")
    assert len(rows) == 3
    layers = page.evaluate(
        "document.querySelectorAll('#panel table')[1].querySelectorAll('tbody tr').length"
    )
    assert layers == 4  # three, and what is outside of them
    assert page.evaluate("document.querySelectorAll('#panel .roofline circle').length") == 2
    shown = text_of(page, "#panel")
    assert "vit.layers.0.sum" in shown  # the spilled tensor
    assert f"--machine {machine}" in shown
    page.keyboard.press("Escape")
    assert page.is_hidden("#panel")
    assert page.evaluate("document.activeElement.id") == "plot"


def test_dark_and_light_by_system_and_by_hand(page: Page) -> None:
    def colours() -> tuple[str, str]:
        style = "getComputedStyle(document.{}).{}"
        mark = "querySelector('#plot .mark-full')"
        return page.evaluate(style.format("documentElement", "backgroundColor")), page.evaluate(
            style.format(mark, "fill")
        )

    light = colours()
    page.emulate_media(color_scheme="dark")
    dark = colours()
    assert all(a != b for a, b in zip(light, dark, strict=True))
    page.click("#theme")
    assert colours() == light
    assert text_of(page, "#theme") == "Dark colours"


@pytest.mark.usefixtures("without_figures")
def test_a_point_without_operators_names_the_command(
    watched: Watched, folder: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("plan.json", "ledger.jsonl"):
        (moved / name).write_bytes((folder / name).read_bytes())
    page = watched.open(build_report(moved))
    page.click(mark(0), force=True)
    shown = text_of(page, "#panel")
    assert "moved without its nodes/" in shown
    assert "python -m hwsim run nodes/export-" in shown
    assert "Energy by component" in shown  # the ledger has those


def test_hardware_alone_and_no_scripts(browser: Browser, watched: Watched, tmp_path: Path) -> None:
    report = build_report(synthetic.make_hardware_folder(tmp_path / "hw", 30))
    page = watched.open(report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert "accuracy" not in text_of(page, "main").lower()
    assert page.locator(".mark-hollow").count() > 0
    assert page.locator("#plot .limit").count() == 1
    assert page.is_hidden(".fixed-front")
    with browser.new_context(java_script_enabled=False) as context:
        still = context.new_page()
        still.goto(report.resolve().as_uri())
        assert still.is_visible(".fixed-front")
        assert still.is_hidden("#explore")
