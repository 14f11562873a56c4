"""Names of folders for what belongs to one visitor."""

import hashlib


def folder_name(owner: str) -> str:
    """A name of one visitor's own: `owner` is what the browser or script calls itself, so it may be anything."""
    return hashlib.sha256(owner.encode(errors="surrogatepass")).hexdigest()[:32]
