"""Starts the app where GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say (127.0.0.1:7860 without them).

What `app.py` runs in a clone and on a Space, and `transact app` from an installed package.
"""

import os

# all are read on import. Without the second, torch's threads spin while they wait: with any other process on
# the same cores (measured: two cores, one busy neighbour) the same work then takes eighteen times as long
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# gradio makes a table of its last 10,000 events after every single one, for a dashboard that is not shown here;
# after a thousand events that took more of the processor than answering the sliders
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")

from ui.server import environment, temporary_folder  # noqa: E402

# a model that only the machine's owner may read must not come to a visitor by the owner's token
if environment.is_public():
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")

temporary_folder.claim()

from ui.application import launch  # noqa: E402


def main() -> None:
    launch(
        os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    )


if __name__ == "__main__":
    main()
