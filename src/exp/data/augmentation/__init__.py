"""New wordings of training inputs whose answers stay what they were."""
