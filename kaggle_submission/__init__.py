"""Entries for the NeurIPS 2023 Machine Unlearning competition: one self-contained file each."""
