"""Turn raw files into a prepared dataset: images.npy, examples.csv, manifest.json.

`dataset` writes one and opens it, `loaders` gives it to entries as the competition did, `verify` recomputes its
hashes and invariants. `folders`, `options`, `pictures`, `raw_files` and `tables` read and write what lies on disk,
and name each fault in a sentence; `duplicates` and `audit` find repeated pictures. The commands are in `sources`.
"""
