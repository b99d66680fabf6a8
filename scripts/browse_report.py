"""Open a report in a headless Chromium, and say what the browser made of it.

    apt-get install chromium; python scripts/browse_report.py [--browser chromium]

Trains three small models, reports each on held-out rows, and opens the pages: no message on the console, every picture drawn
with a size, nothing asked for from elsewhere, under 1 MB. Prints JSON; exits with 1 where that is not so.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import streamsgd

PROBE = """<script>addEventListener('load', () => {
  const sizes = [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect());
  const asked = performance.getEntriesByType('resource').map(entry => entry.name);
  document.body.setAttribute('data-drawn', sizes.filter(box => box.width > 20 && box.height > 20).length);
  document.body.setAttribute('data-asked', asked.length);
});</script></body>"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browser", default="chromium")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="browse_report_") as folder:
        found = {target: opened(target, Path(folder), given.browser) for target in ("number", "two", "three")}
    print(json.dumps(found))
    return 0 if all(kept(one) for one in found.values()) else 1


def kept(found: dict[str, Any]) -> bool:
    return not found["console"] and found["drawn"] == found["pictures"] > 2 and not found["asked"] and found["bytes"] < 10**6


def rows(seed: int, n: int = 3000) -> pa.Table:
    rng = np.random.default_rng(seed)
    x, site = rng.normal(size=n), rng.choice(["a", "b", "c"], n)
    score = x + (site == "a") + 0.5 * rng.normal(size=n)
    three = np.where(score > 1, "up", np.where(score < 0, "down", "mid"))
    return pa.table({"x": x, "site": site, "number": score, "two": score > 0.3, "three": three})


def opened(target: str, folder: Path, browser: str) -> dict[str, Any]:
    """Return what a browser says of the report of a model."""
    settings = {"features": ["x", "site"], "epochs": 2, "executor": "inline", "validation": 0.1, "optimizer": "adam"}
    model, page = streamsgd.train(rows(0), target, **settings), folder / f"{target}.html"
    streamsgd.report(model, page, rows(1))
    text = page.read_text()
    probed = folder / f"{target}-probed.html"
    probed.write_text(text.replace("</body>", PROBE))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000", "--dump-dom", probed.as_uri()]
    done = subprocess.run([browser, *flags], capture_output=True, text=True, check=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    counts = {name: int(re.search(rf'data-{name}="(\d+)"', done.stdout)[1]) for name in ("drawn", "asked")}  # type: ignore[index]
    return {"bytes": len(text.encode()), "pictures": text.count("<svg"), "console": said, **counts}


if __name__ == "__main__":
    sys.exit(main())
