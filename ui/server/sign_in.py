"""Whose account a push goes to: the visitor's on a Space, this machine's where only its owner can reach the page.

The token of the machine is its owner's. On a host that others reach it must never serve a visitor.
"""

import os
from importlib.util import find_spec
from typing import Literal

import gradio as gr

from ui.errors import WrongInput
from ui.server import environment

_OAUTH = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
"""What a Space sets where its header says `hf_oauth: true`; gradio stops the launch where one is missing."""

Way = Literal["visitor", "machine", "none"]


def way() -> Way:
    """Whose account serves here: each visitor's, who signs in; the machine's; or nobody's."""
    if environment.is_space():
        # gradio takes a page for a Space by both, and elsewhere signs everybody in as the machine's owner
        is_space = os.environ.get("SYSTEM") == "spaces" and "SPACE_ID" in os.environ
        configured = all(os.environ.get(name) for name in _OAUTH)
        return "visitor" if is_space and configured and find_spec("authlib") else "none"
    return "none" if environment.is_public() else "machine"


def token(signed_in: gr.OAuthToken | None) -> str | None:
    """The token to push with; None stands for the machine's own. Raises `WrongInput` where there is none to use."""
    match way():
        case "machine":
            return None
        case "visitor" if signed_in is not None:
            return signed_in.token
        case "visitor":
            raise WrongInput("Nobody is signed in. Press “Sign in with Hugging Face” first, then push again.")
        case _:
            raise WrongInput(
                "Others can reach this page, and it has no sign-in, so it cannot push. Download the model and push it "
                "from your own machine: python -m transact push FOLDER --repo NAME."
            )
