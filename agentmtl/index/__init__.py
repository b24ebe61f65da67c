"""The index on disk: segments, generations, filters, verification."""
