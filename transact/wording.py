"""Numbers in sentences."""


def counted(number: int, noun: str) -> str:
    """1 sequence, 1,200 sequences; `noun` takes an s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def with_memory(title: str, needed: int) -> str:
    """The title of some work with the memory in bytes that it needs beside the model."""
    return f"{title} (about {needed / 1e9:.1f} GB)"
