"""Trains and encodes with Hugging Face's tokenizers for the Go tests.

usage: hf_parity.py train  TEXT SIZE OUT    one document a blank-line block; writes OUT (tokenizer.json)
       hf_parity.py encode TOKENIZER TEXTS  TEXTS holds a JSON list; prints {"plain": [[ids]], "special": [[ids]], "decoded": [text]}
       hf_parity.py split  TEXTS            prints the words of each text as [[begin, end], ...] in characters
       hf_parity.py time   TOKENIZER TEXT   prints seconds to encode the file line by line
"""
import json
import sys
import time

from tokenizers import ByteLevelBPETokenizer, Tokenizer, pre_tokenizers

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def train(text, size, out):
    documents = open(text, encoding="utf-8", newline="").read().split("\n\n")
    tokenizer = ByteLevelBPETokenizer(add_prefix_space=False)
    tokenizer.train_from_iterator(documents, vocab_size=int(size), min_frequency=2, special_tokens=SPECIALS)
    tokenizer.save(out)


def plain_copy(path):
    """The same model without added tokens, so that their names are text."""
    data = json.load(open(path, encoding="utf-8"))
    data["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(data))


def encode(path, texts):
    texts = json.load(open(texts, encoding="utf-8"))
    special, plain = Tokenizer.from_file(path), plain_copy(path)
    ids = [special.encode(t).ids for t in texts]
    json.dump({
        "plain": [plain.encode(t).ids for t in texts],
        "special": ids,
        "decoded": [special.decode(i, skip_special_tokens=True) for i in ids],
    }, sys.stdout)


def split(texts):
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = json.load(open(texts, encoding="utf-8"))
    json.dump([[w[1] for w in words.pre_tokenize_str(t)] for t in texts], sys.stdout)


def timed(path, text):
    tokenizer = Tokenizer.from_file(path)
    lines = open(text, encoding="utf-8").read().splitlines(keepends=True)
    start = time.perf_counter()
    for line in lines:
        tokenizer.encode(line)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    {"train": train, "encode": encode, "split": split, "time": timed}[sys.argv[1]](*sys.argv[2:])
