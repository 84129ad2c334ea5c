"""Proof procedures over frozen networks. Each file holds one certifier; `certificate.py` says what a proof is."""
