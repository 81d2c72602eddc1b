"""Callbacks for trainers of other libraries, each imported by its own name: `hookline.integrations.transformers`."""
