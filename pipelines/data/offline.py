"""Data Docs that open without a network: as generated, every page asks seven hosts for styles, scripts and a logo."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

#: What a browser would fetch, and scripts, which do nothing without the libraries that they fetch.
FETCHED = re.compile(r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>", re.IGNORECASE | re.DOTALL)
BACKGROUND = re.compile(r"""url\(["']?(?:https?:)?//[^)]*\)""", re.IGNORECASE)

#: Cell values reach the pages unescaped: nothing in them may run or call home.
ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
POLICY = f'<meta http-equiv="Content-Security-Policy" content="{ALLOWED}">'
#: The few rules of Bootstrap 4 that the pages need to be read.
STYLE = """
*{box-sizing:border-box} body{font:15px/1.5 system-ui,sans-serif;margin:0;color:#222} a{color:#0b5cad}
main{padding:1rem 2rem} .container-fluid{padding:0 1.5rem} .row{display:flex;flex-wrap:wrap} .col-12{width:100%}
.col-md-2,.col-lg-2{flex:0 0 18%} .col-md-10,.col-lg-10{flex:1;min-width:0}
ul{list-style:none;padding-left:1rem} .modal,.btn-group,.d-md-block .d-none{display:none}
table{border-collapse:collapse;margin:.5rem 0;max-width:100%}
td,th{border:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
.alert{padding:.6rem 1rem;border-radius:.3rem;background:#eef} .badge{padding:0 .4rem;background:#eee}
.fa-check-circle::before{content:"\\2713"} .fa-times::before{content:"\\2717"}
.text-success{color:#187a2f} .text-danger{color:#b3261e} i{font-style:normal}
"""
HEAD = f'{POLICY}<meta charset="utf-8"><style>{STYLE}</style>'


def make_offline(docs: Path, passed: Mapping[str, bool]) -> None:
    """Take out what would be fetched, and put a plain index in place of the one that scripts fill.

    `passed` says for each page, by name, whether all of it held.
    """
    for page in sorted(docs.rglob("*.html")):
        html = BACKGROUND.sub("none", FETCHED.sub("", page.read_text(encoding="utf-8")))
        html = html.replace("<head>", f"<head>{POLICY}", 1).replace("</head>", f"<style>{STYLE}</style></head>", 1)
        page.write_text(html, encoding="utf-8")
    shutil.rmtree(docs / "static")
    (docs / "index.html").write_text(_index(docs, passed), encoding="utf-8")


def _index(docs: Path, passed: Mapping[str, bool]) -> str:
    rows = []
    for name, success in passed.items():
        (page,) = (docs / "validations" / name).rglob("*.html")
        mark = '<b class="text-success">✓ all hold</b>' if success else '<b class="text-danger">✗ findings</b>'
        suite = f'<a href="expectations/{quote(name)}.html">expectations</a>'
        link = f'<a href="{quote(page.relative_to(docs).as_posix())}">{escape(name)}</a>'
        rows.append(f"<tr><td>{link}</td><td>{mark}</td><td>{suite}</td></tr>")
    table = f"<table><tr><th>page</th><th>result</th><th></th></tr>{''.join(rows)}</table>"
    about = "<p>Quarantined rows, with the reason beside each, stand in quarantine.csv; counts in report.json.</p>"
    body = f"<body><main><h1>Validation</h1>{about}{table}</main></body>"
    return f"<!doctype html><html><head>{HEAD}<title>Validation</title></head>{body}</html>\n"
