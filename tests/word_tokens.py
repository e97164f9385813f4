"""A tokenizer of whole words, so that tests read as sentences."""

import re


class WordTokenizer:
    """Words, each with its leading space, and punctuation; a word with "-" is a token per part."""

    pattern = r" ?\w+|-\w+| ?[^\w\s]|\s"

    def __init__(self, bos_id=None, adds_bos=False):
        self.words = ["<pad>", "<bos>"]
        self.pad_id, self.bos_id, self.adds_bos = 0, bos_id, adds_bos

    def encode(self, text):
        found = re.findall(self.pattern, text)
        assert "".join(found) == text
        self.words += [word for word in dict.fromkeys(found) if word not in self.words]
        return [self.words.index(word) for word in found]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)
