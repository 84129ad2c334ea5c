"""Training methods, one family a file. Each is a frozen dataclass that `fit` drives."""
