"""Grafana's dashboards are what Grafana's own types (`@grafana/schema`) say that dashboards are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from cli.example import grafana_dashboards as tool
from clients.toolchains import needed, node_packages

PAGES = sorted(tool.FOLDER.rglob("*.json"))
DECLARED = 'import type {{ Dashboard }} from "@grafana/schema";\nexport const page: Dashboard = {};\n'


def complaints(folder: Path, dashboards: dict[str, str]) -> list[str]:
    """What the compiler of TypeScript says of JSON texts as literals of that type, by their names."""
    modules = node_packages("grafana_types") / "node_modules"
    for name, text in dashboards.items():
        (folder / name).write_text(DECLARED.format(text), encoding="utf-8")
    types = modules / "@grafana/schema/dist/types/index.d.ts"
    options = {"strict": True, "noEmit": True, "skipLibCheck": True, "types": [], "module": "nodenext"}
    options["paths"] = {"@grafana/schema": [str(types)]}
    config = folder / "tsconfig.json"
    config.write_text(json.dumps({"compilerOptions": options, "files": list(dashboards)}), encoding="utf-8")
    command = [needed("node"), str(modules / "typescript/bin/tsc"), "--pretty", "false", "-p", str(config)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(" ")]


def test_the_dashboards_are_of_grafanas_type(tmp_path: Path) -> None:
    texts = {f"{path.parent.name}_{path.stem}.ts": path.read_text(encoding="utf-8") for path in PAGES}
    assert len(texts) == 6
    some = json.loads(PAGES[0].read_text(encoding="utf-8"))
    misspelt = json.dumps({**some, "panel": []})
    some["templating"]["list"][0]["refresh"] = 7
    # what can't be is found: a check that finds nothing would pass whatever the dashboards hold
    found = complaints(tmp_path, texts | {"misspelt.ts": misspelt, "wrong.ts": json.dumps(some)})
    assert [line.split("(")[0] for line in found] == ["misspelt.ts", "wrong.ts"]
    assert "panel" in found[0]
    assert "VariableRefresh" in found[1]
