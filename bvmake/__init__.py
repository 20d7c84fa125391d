"""Makes what a study stands on, once and beforehand: base models and their admission, prepared
datasets, others' checkpoints as our files, and the golden values that guard its results.

`bvlib` is what notebooks import; it reads its own files only. Of it the command line alone needs
this package (`bv pretrain`, `bv admit`, `bv data prepare`, `bv data fetch`, `bv import`,
`bv golden`).
"""
