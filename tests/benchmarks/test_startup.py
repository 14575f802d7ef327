"""The startup benchmark compares like with like."""

import json
import sys

from PIL import Image, ImageChops

from asyncdiff_cli import app
from benchmarks import startup


def test_both_ways_draw_the_same_picture(tmp_path, monkeypatch):
    ways = startup.lines(tmp_path)
    _, script, *arguments = ways["stock"]
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(compile(script, "script", "exec"), {})
    assert app.run(ways["asyncdiff"][2:]) == 0
    stock, own = (Image.open(file) for file in tmp_path.rglob("*.png"))
    assert stock.size == own.size
    assert ImageChops.difference(stock, own).getbbox() is None


def test_every_round_runs_each_way_in_a_process_of_its_own(monkeypatch, capsys, tmp_path):
    mark = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()} ')"
    ways = {name: ["-c", mark, str(tmp_path / name)] for name in ("stock", "asyncdiff")}
    monkeypatch.setattr(startup, "lines", lambda _: ways)
    startup.main(rounds=3, json=True)
    assert json.loads(capsys.readouterr().out)["ratio"] > 0
    processes = [pid for name in ways for pid in (tmp_path / name).read_text().split()]
    assert len(set(processes)) == 2 * (1 + 3)  # one that reads the disk, and three rounds
