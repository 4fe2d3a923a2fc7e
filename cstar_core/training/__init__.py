"""Adversarial training: one loop for dense training, ADMM and fine-tuning.

`config` what a run is, `loop` the run, `progress` what it yields, `sampling`, `augmentation` and
`randomness` its inputs, `crafting` its attack, `objectives` its loss, `descent` a step of it, with
`perturbation` (AWP), `optimizers` (weight decay by kind) and `schedules` (learning rate),
`execution` precision and compilation, `distributed` and `global_batch_norm` several processes,
`ema` and `selection` what is kept of it, `admm` the penalty that pulls weights onto the low-rank
set, `calibration` the batch-norm statistics of changed weights. Attacks live in
`cstar_core.attacks`, the final figures in `cstar_core.evaluation`; which phases run, and when a
checkpoint is written, is decided by the caller.
"""
