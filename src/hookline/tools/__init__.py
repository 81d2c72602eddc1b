"""One verb a file, each on the public names of the layers below."""
