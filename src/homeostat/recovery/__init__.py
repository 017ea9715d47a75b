"""The actions on a dead host: fence it, mark it at the cloud, place its guests elsewhere."""
