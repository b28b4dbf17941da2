"""The networks of SyncAnimation (IJCAI 2025) on SyncTalk's renderer: syncers, radiance fields, ray marching, files."""
