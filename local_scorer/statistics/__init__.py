"""How sure a score is, and what else is to be said of the same models. Needs no torch.

`intervals` redraws models and forget examples, `originals` takes the mean over several originals, `ties` says
which entries can be told apart, and `forecast` what the score would be at 512 models. `audits`, `klom` and `shift`
measure what the score leaves out.
"""
