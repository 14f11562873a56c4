"""pip install, told in one line that is rewritten: python .ci/install.py ARGUMENTS OF PIP INSTALL

In a terminal the line follows what pip collects, downloads and builds; elsewhere only its beginning and end are
printed. Where pip fails, everything that it said is.
"""

import shutil
import subprocess
import sys
import time

_STEPS = ("Collecting", "Downloading", "Building", "Installing", "Preparing")


def main(arguments: list[str]) -> int:
    """Run pip with `arguments`; its exit code."""
    subject = " ".join(each.removeprefix("--requirement=") for each in arguments if not each.startswith("--index"))
    began, said = time.monotonic(), []
    _show(f"pip install {subject}: the first time this takes minutes", last=not sys.stdout.isatty())
    pip = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check", *arguments]
    with subprocess.Popen(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as run:
        for line in run.stdout:
            said.append(line)
            step = line.strip()
            if step.startswith(_STEPS) and sys.stdout.isatty():
                _show(f"{time.monotonic() - began:4.0f} s  {step}")
    if run.returncode:
        sys.stdout.write(f"\n{''.join(said)}")
        return run.returncode
    count = next((len(line.split()) - 2 for line in reversed(said) if line.startswith("Successfully installed")), 0)
    _show(f"pip install {subject}: {count} packages in {time.monotonic() - began:.0f} s", last=True)
    return 0


def _show(text: str, *, last: bool = False) -> None:
    """Put `text` where the line before stood, cut to the width of the terminal; `last` ends the line."""
    erase = "\r\033[K" if sys.stdout.isatty() else ""
    width = shutil.get_terminal_size().columns - 1
    sys.stdout.write(f"{erase}{text[:width]}" + ("\n" if last else ""))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
