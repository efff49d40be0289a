"""What is trained and how.

`nets` has ResNet-18 of any width and its training, `recipes` the settings of training (without torch), and
`timing` the clock that counts an entry's own work alone.
"""
