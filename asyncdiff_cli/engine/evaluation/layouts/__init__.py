"""The folders of pictures that the scorers of benchmarks read, and the files that they write."""
