"""The OCI part of Slurm's container support: what ``oci.conf`` says, and what is done to a bundle.

Read in this order: ``conf`` (what the keys mean), ``patterns`` (``%b`` and its like), ``search``
(which file is read).
"""
