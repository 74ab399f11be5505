"""From the report's data to its one file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import table
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import gathering
from pytest_flagperf.reports.html import libraries
from pytest_flagperf.reports.html import texts


HERE = Path(__file__).parent
SCRIPTS = ("charts.js", "page.js")
_SIGNS = re.compile(r"[<>&]")
# What of JSON would end a script, begin a comment in HTML, or a line in old JavaScript.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render(data: Mapping[str, Any], language: str = "both") -> str:
    """The page. Raises ``ConfigurationError`` where the extra ``html`` is not installed."""
    try:
        import jinja2
    except ImportError as error:
        raise ConfigurationError(
            "the HTML report needs Jinja2, which is not installed: pip install 'pytest-flagperf[html]'"
        ) from error

    found = libraries.bundled()
    script = _script()
    first = "en" if language == "both" else language
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": reading.figure,
        "microseconds": table.microseconds,
        "percent": percent,
        "searchable": _searchable,
        "severity": reading.severity,
        "comparison_order": reading.comparison_order,
        "moment": gathering.moment,
    }
    environment.globals |= {"word": texts.word, "say": lambda key: texts.say(key, first)}
    environment.globals |= {
        "t": cache(lambda key: _text(key, first)),
        "badge": cache(lambda verdict: _badge(verdict, first)),
    }
    template = environment.get_template("page.html.j2")
    scripts = [script, *found["bokeh"].scripts]
    return template.render(
        report=data,
        language=first,
        languages=texts.LANGUAGES if language == "both" else (language,),
        style=_markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=_markup(script),
        policy=policy(scripts),
        json=lambda value: _markup(as_json(value)),
        texts=texts.for_page(),
        charts={case["anchor"]: case["charts"] for case in data["cases"] if case["charts"]},
        samples={
            row["anchor"]: row["details"]["chart"]
            for family in data["families"]
            for row in family["rows"]
            if row["details"]["chart"]
        },
        libraries=found,
        packed={name: libraries.packed(one) for name, one in found.items()},
        notices={name: libraries.notices(one) for name, one in found.items()},
    )


def as_json(value: Any) -> str:
    """JSON that can stand in a script element whatever text is in it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def _script() -> str:
    """The page's own script, in a scope of its own."""
    parts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def policy(scripts: list[str]) -> str:
    """The content security policy: these scripts, modules made from what the file holds, and nothing from elsewhere."""
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests} blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )


def percent(value: float | None) -> str:
    """A change, with its sign."""
    return "" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def _text(key: str, language: str) -> Any:
    """A text of the catalogue, as an element whose language the page can switch."""
    return _markup('<span data-t="{}">{}</span>').format(key, texts.say(key, language))


def _badge(verdict: str, language: str) -> Any:
    """A verdict with its sign and colour."""
    word = texts.word(verdict)
    return _markup(
        '<span class="badge {}"><span aria-hidden="true">{}</span> <span data-t="verdict.{}">{}</span></span>'
    ).format(word.tone, word.sign, verdict, getattr(word, language))


def _searchable(escaped: str) -> Any:
    """What a table is to be searched for, of a template's escaped text: without the signs that begin markup.

    The library of tables reads an attribute with an entity in it as markup, and so would load what it names.
    """
    return _markup("{}").format(_SIGNS.sub(" ", html.unescape(str(escaped))))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _markup(text: str) -> Any:
    """Text that is ours, or made safe above: it is not escaped again."""
    import markupsafe

    return markupsafe.Markup(text)  # noqa: S704 (its callers give no text of others that as_json did not pass)
