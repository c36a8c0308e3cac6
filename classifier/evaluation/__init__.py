"""The evaluation that `botsieve evaluate --protocol` runs: every table of `docs/evaluation.md` from fixed seeds."""
