"""Step 8, continued: push the model to the Hugging Face hub."""

from dataclasses import dataclass

import gradio as gr

from ui.server import sign_in
from ui.state.session import Session

_ACCOUNT = {
    "visitor": "It goes to the account that you sign in with.",
    "machine": "It goes to the account of this machine (HF_TOKEN, or <code>hf auth login</code>).",
    "none": "This page has no sign-in: download the model and push it with <code>python -m transact push</code>.",
}


@dataclass(frozen=True)
class SharePanel:
    repository: gr.Textbox
    private: gr.Checkbox
    replace: gr.Checkbox
    push: gr.Button

    @property
    def inputs(self) -> list:
        return [self.repository, self.private, self.replace]


def build(session: Session) -> SharePanel:
    way = sign_in.way()
    gr.HTML(
        "<h3>Push to the Hugging Face hub</h3><p>The same checkpoint, proved, in a repository of yours. "
        f"{_ACCOUNT[way]}</p>",
        js_on_load=None,
    )
    if way == "visitor":  # elsewhere gradio would not start, or sign everybody in as the owner of the machine
        gr.LoginButton(elem_id="sign-in", size="sm")
    with gr.Row(elem_classes="bottom"):
        repository = gr.Textbox(
            label="Repository", placeholder="small-model, or owner/small-model", max_lines=1, elem_id="push-repository"
        )
        push = gr.Button("Push", elem_id="push-button", size="sm", scale=0, min_width=140)
    with gr.Row():
        private = gr.Checkbox(True, label="Private", elem_id="push-private", min_width=150)
        replace = gr.Checkbox(False, label="Replace what is there", elem_id="push-replace", min_width=150)
    return SharePanel(repository, private, replace, push)


PAINTS = {}
"""Nothing here follows the session: what a visitor typed stays."""
