"""How numbers stand in sentences."""


def counted(number: int, noun: str) -> str:
    """1 sequence, 1,200 sequences; `noun` takes an s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
