"""Turn raw files into a prepared dataset: images.npy, examples.csv, manifest.json."""
