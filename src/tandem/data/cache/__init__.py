"""Files of a remote, block by block, in a folder of the node that all its jobs share."""
