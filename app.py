"""Starts the app where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say (127.0.0.1:7860 without them)."""

from ui.__main__ import main

if __name__ == "__main__":
    main()
