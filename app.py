"""Starts the app where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say (127.0.0.1:7860 without them)."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported, which reads it

from ui.application import launch  # noqa: E402


def main() -> None:
    launch(
        os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )


if __name__ == "__main__":
    main()
