"""The method: Tucker-2 compression and adversarial robustness in one problem, in pure PyTorch.

Knows no web server, queue or database. Usable alone: `import cstar_core`.
"""
