"""The bodies and queries of the operator's routes and of explanations: read strictly, every fault at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from rounds.core.errors import BadRequest, Fault
from rounds.faces.web.body import header
from rounds.faces.web.predict import asked

if TYPE_CHECKING:
    from rounds.loop.recalling import View

LONGEST_TEXT = 1000
_TEXT = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{LONGEST_TEXT}}}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9@_.-]{0,127}")


def order(scope: Scope, body: bytes, names: Sequence[str]) -> dict[str, str | None]:
    """The texts of a JSON object with some of these names; None for what is absent.

    Raises BadRequest: 415 for another content type (so that no page of a stranger can send it from a browser), 400 for
    what is no JSON, 422 for other names and for what is no text or too long.
    """
    media = (header(scope, b"content-type") or b"").split(b";", 1)[0].strip().lower()
    if media != b"application/json":
        fault = Fault("wrong content type", "content-type", "application/json", media.decode("latin-1")[:80])
        raise BadRequest("the body is not declared as JSON", [fault], status=415)
    found = parsed(body)
    if not isinstance(found, Mapping):
        fault = Fault("the body is not an object", "body", f"an object of {', '.join(names)}", type(found).__name__)
        raise BadRequest("the order cannot be read", [fault], status=422)
    expected = " or ".join(names)
    faults = [Fault("unknown key", "body", expected, repr(str(key)[:40])) for key in found if key not in names]
    for name in names:
        value = found.get(name)
        if name in found and not (isinstance(value, str) and _TEXT.fullmatch(value)):
            wanted = f"1 to {LONGEST_TEXT:,} printable characters"
            faults.append(Fault("the value cannot be used", f"body {name}", wanted, type(value).__name__))
    if faults:
        raise BadRequest("the order cannot be understood", faults, status=422)
    return {name: found.get(name) for name in names}


def candidate(given: Mapping[str, str | None]) -> str:
    """The bundle or version that is to be promoted; BadRequest (422) where it is not exactly one plain name."""
    named = [value for key in ("bundle", "version") if (value := given[key]) is not None]
    if len(named) != 1 or not _REF.fullmatch(named[0]):
        expected = "one of bundle and version: a digest, a unique prefix of it, latest, or a version"
        fault = Fault("no single candidate", "body", expected, ", ".join(named)[:80] or "none", "rounds models")
        raise BadRequest("it is not said what is to be promoted", [fault], status=422)
    return named[0]


def view(query_string: bytes) -> View:
    """How an explanation is to be drawn; BadRequest (422) for unknown names and values."""
    from rounds.imaging.overlay import Style
    from rounds.loop.recalling import View

    given = asked(query_string, ("class", "style", "opacity"))
    faults = []
    styles = [style.value for style in Style]
    if given.get("style", styles[0]) not in styles:
        faults.append(Fault("no such style", "query style", " or ".join(styles), repr(given["style"])[:40]))
    opacity = _share(given.get("opacity", "0.6"))
    if opacity is None:
        faults.append(Fault("no such opacity", "query opacity", "a number from 0 to 1", repr(given["opacity"])[:40]))
    if faults or opacity is None:
        raise BadRequest("the query cannot be understood", faults, status=422)
    return View(given.get("class"), Style(given.get("style", styles[0])), opacity)


def parsed(body: bytes) -> Any:
    """The JSON value of a body; BadRequest (400) where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        fault = Fault("the body is not JSON", "body", "JSON in UTF-8", str(error)[:200])
        raise BadRequest("the body cannot be read", [fault]) from error


def _share(text: str) -> float | None:
    # float() also takes other alphabets' digits, underscores and spaces
    if not re.fullmatch(r"([0-9]{1,3}(\.[0-9]{1,20})?|\.[0-9]{1,20})(e-?[0-9]{1,3})?", text, re.ASCII):
        return None
    value = float(text)
    return value if 0 <= value <= 1 else None
