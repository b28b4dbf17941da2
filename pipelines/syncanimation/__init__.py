"""SyncAnimation: head pose, expression, lips and upper body of one person from audio."""
