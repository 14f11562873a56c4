"""Untrusted text made safe to show, log or write: no access tokens, and one line."""

import re

_TOKEN = re.compile(r"\b(?:hf|api)_(?:[a-z]+_)?[A-Za-z0-9]{20,}(?:[\w.-]*\w)?")
"""How the Hugging Face hub's tokens begin: `hf_…` of a user, `hf_oauth_…` of a sign-in, `api_org_…` of old."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
"""Characters that break a line or change the direction of text, and lone surrogates, which cannot be encoded."""


def without_tokens(text: str) -> str:
    """`text` with every access token of the hub replaced by its first letters and "…"."""
    return _TOKEN.sub(lambda match: f"{match[0].partition('_')[0]}_…", text)


def one_line(text: str) -> str:
    """`text` without line breaks, control characters and lone surrogates, each run of them a space."""
    return _CONTROL.sub(" ", text)
