"""The machine: its memory, devices and processes, random numbers, and algebra that can be cancelled."""
