"""Training, exactness, export and everything a served model needs."""
