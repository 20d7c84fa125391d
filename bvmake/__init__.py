"""Makes what the study stands on: base models, their admission, and prepared datasets.

`bvlib` is what notebooks import; nothing of it but the command line (`bv pretrain`, `bv admit`,
`bv data prepare`, `bv data fetch`) needs this package.
"""
