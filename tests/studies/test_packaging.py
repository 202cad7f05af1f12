"""The wheel: what is in it, and that it works from a folder where the user has a `studies/` of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    # --no-isolation: the build backend is a development dependency, so no network is needed
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("bitwright-*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, timeout=300)
    return target


def run(site: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder of the user's, with the installed copy in front of this checkout."""
    return subprocess.run(
        list(command),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_wheel_holds_packages_and_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    version = wheel.name.split("-")[1]
    assert tops == {"hwsim", "qat", "studies", "accelerators", f"bitwright-{version}.dist-info"}
    for package in ("hwsim", "qat", "studies", "accelerators"):
        assert f"{package}/__init__.py" in names  # regular packages: no other folder can mix in
    for tracked in ("accelerators", "qat/recipes", "qat/runs", "studies/configs"):
        wanted = {p.relative_to(ROOT).as_posix() for p in (ROOT / tracked).rglob("*.yaml")}
        assert wanted
        assert wanted <= set(names)
    assert "studies/templates/report.html.j2" in names
    for unwanted in ("tests/", "studies/results/", "bitwright-runs/", "__pycache__", ".nbi"):
        assert not [name for name in names if unwanted in name]


def test_finds_machines_and_studies_from_another_folder(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, sys.executable, "-m", "studies.sweep", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "on xnor_edge" in result.stdout
    where = "import studies, hwsim, qat; print(studies.__file__, hwsim.__file__, qat.__file__)"
    files = run(site, tmp_path, sys.executable, "-c", where).stdout.split()
    assert all(Path(f).is_relative_to(site) for f in files)


def test_a_users_plain_folder_called_studies_does_not_mix_in(site: Path, tmp_path: Path) -> None:
    own = tmp_path / "studies"
    own.mkdir()
    (own / "sweep.py").write_text("raise SystemExit('the wrong file')")
    (own / "notes.py").write_text("")
    result = run(site, tmp_path, sys.executable, "-m", "studies.sweep", "--dry-run")
    assert result.returncode == 0, result.stderr
    mixed = run(site, tmp_path, sys.executable, "-c", "import studies.notes")
    assert "No module named 'studies.notes'" in mixed.stderr


def test_console_script_is_immune_to_a_users_package_called_studies(
    site: Path, tmp_path: Path
) -> None:
    own = tmp_path / "studies"
    own.mkdir()
    (own / "__init__.py").write_text("raise SystemExit('the wrong package')")
    # `python -m` puts the working directory first, as Python documents; docs/studies.md says so
    shadowed = run(site, tmp_path, sys.executable, "-m", "studies.sweep", "--dry-run")
    assert "the wrong package" in shadowed.stderr
    (script,) = (site / "bin").glob("bitwright")
    result = run(site, tmp_path, sys.executable, str(script), "sweep", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "on xnor_edge" in result.stdout
