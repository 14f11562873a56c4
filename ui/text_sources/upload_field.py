"""A file field that takes what was uploaded, and nothing that the server would have to fetch."""

import gradio as gr
from gradio_client.utils import is_http_url_like


def upload_field(**settings) -> gr.File:
    """Gradio's file field; its own also takes an address, downloads it whole, and gives the file to the page.

    The one method is replaced on the component: gradio writes a file beside every module that holds a class of its own.
    """
    field = gr.File(**settings)
    take = field.async_move_resource_to_block_cache

    async def take_upload(path):
        if path is not None and is_http_url_like(str(path)):
            raise gr.Error("Only a file can be uploaded here, not an address.", print_exception=False)
        return await take(path)

    field.async_move_resource_to_block_cache = take_upload
    return field
