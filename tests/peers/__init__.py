"""The same lists for us and for other libraries."""
