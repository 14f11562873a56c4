"""Takes access tokens out of text that is shown, logged or written."""

import re

_TOKEN = re.compile(r"\b(?:hf|api)_(?:[a-z]+_)?[A-Za-z0-9]{20,}(?:[\w.-]*\w)?")
"""How the Hugging Face hub's tokens begin: `hf_…` of a user, `hf_oauth_…` of a sign-in, `api_org_…` of old."""


def without_tokens(text: str) -> str:
    """`text` with every access token of the hub replaced by its first letters and "…"."""
    return _TOKEN.sub(lambda found: f"{found[0].partition('_')[0]}_…", text)
