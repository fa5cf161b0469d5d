"""The wheel carries its configuration and works from any directory."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from conftest import ROOT, summary_of


def test_an_installed_wheel_trains_from_another_directory(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "mlefw/conf/train.yaml" in names
    assert "mlefw/conf/head/poisson.yaml" in names
    assert "mlefw/report/page.html" in names
    assert "mlefw/conf/hydra/launcher/fork.yaml" in names
    assert any(name.endswith("LICENSE") for name in names)

    environment = tmp_path / "env"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    # Dependencies come from the environment of the tests; mlefw itself, found first, from the wheel.
    (site / "dependencies.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    code = (
        "import mlefw, sys; from mlefw.cli import run; assert 'env' in mlefw.__file__, mlefw.__file__;"
        "sys.exit(run(['train', 'trainer.max_epochs=2', 'run_dir=r', 'logger=none']))"
    )
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert summary_of(tmp_path / "r")["status"] == "finished"
    assert (tmp_path / "r" / "report.html").is_file()
