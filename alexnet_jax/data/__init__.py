"""The input pipeline: sources of labeled images, decoding and batches on the host."""
