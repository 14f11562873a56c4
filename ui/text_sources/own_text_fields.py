"""The fields in which a visitor names a text of one's own: a file and its column, or a dataset of the hub."""

from dataclasses import dataclass

import gradio as gr

from ui.text_sources.upload_field import upload_field


@dataclass(frozen=True)
class OwnTextFields:
    """Built unseen; `dataset_fields` holds those of the dataset."""

    file: gr.File
    column: gr.Dropdown
    dataset_fields: gr.Column
    dataset: gr.Textbox
    config: gr.Textbox
    split: gr.Textbox
    dataset_column: gr.Textbox


def build(name: str, dataset_name: str, *, split: str) -> OwnTextFields:
    """The fields, whose ids begin with these names; `split`: what the dataset's split is at first."""
    file = upload_field(
        label="File: .txt, .jsonl, .json, .csv or .parquet, UTF-8, up to 20 MB", file_count="single", visible=False,
        height=110, elem_id=f"{name}-file",
    )  # fmt: skip
    column = gr.Dropdown([], label="Column with the text", visible=False, elem_id=f"{name}-column")
    with gr.Column(visible=False, elem_classes="tight") as dataset_fields:
        dataset = gr.Textbox(
            label="Dataset", placeholder="Salesforce/wikitext", elem_id=f"{dataset_name}-name",
            info="Its id on the hub, or a folder on this machine; only its first rows are read",
        )  # fmt: skip
        with gr.Row(elem_classes="tight"):
            config = gr.Textbox(label="Config", placeholder="default", min_width=100, elem_id=f"{dataset_name}-config")
            split_name = gr.Textbox(split, label="Split", min_width=100, elem_id=f"{dataset_name}-split")
        dataset_column = gr.Textbox(
            label="Column with the text", placeholder="guessed when empty", elem_id=f"{dataset_name}-column"
        )
    return OwnTextFields(file, column, dataset_fields, dataset, config, split_name, dataset_column)
