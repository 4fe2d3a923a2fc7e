"""How long networks take: `timing` side by side, `runtimes` what they run in, `speed` in words."""
