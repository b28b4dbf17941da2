"""The steps that turn a prepared person into what SyncAnimation is trained on."""
