"""Trains tiny SentencePiece models and records what the sentencepiece package makes of many texts.

    make_spm_goldens.py NOVELS.txt[.xz]      needs sentencepiece

NOVELS is English prose, only to train on and to cut texts from; the committed files were made from public-domain
novels (E. M. Forster and others, Project Gutenberg).
"""
import io
import json
import lzma
import pathlib
import random
import sys
import tempfile

import sentencepiece

from golden_texts import texts

HERE = pathlib.Path(__file__).resolve().parent

# As Llama 2, T5, Gemma, and what is left: no normalization at all, a suffix for a prefix, no dummy prefix.
MODELS = {
    "bpe-byte": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", vocab_size=900,
                     remove_extra_whitespaces=False, allow_whitespace_only_pieces=True),
    "unigram-nmt": dict(model_type="unigram", vocab_size=500, user_defined_symbols=["<sep>", "WORD", "▁the▁"],
                        control_symbols=["<ctl>"]),
    "bpe-rules": dict(model_type="bpe", vocab_size=500, normalization_rule_tsv="RULES", pad_id=3,
                     user_defined_symbols=["\n", "\n\n", "<tag>", "  "]),
    "unigram-byte": dict(model_type="unigram", byte_fallback=True, vocab_size=800, normalization_rule_name="identity",
                         add_dummy_prefix=False, remove_extra_whitespaces=False),
    "unigram-suffix": dict(model_type="unigram", vocab_size=400, normalization_rule_tsv="RULES",
                           treat_whitespace_as_suffix=True, unk_id=3, bos_id=-1, eos_id=0,
                           pad_id=1),
}
# The rules that come with sentencepiece take 240 KB a model: one model has them, two have these.
RULES = [("Ａ", "A"), ("ＷＯ", "WO"), ("ＲＤ", "RD"), ("①", "1"), ("②", "2"), ("\u3000", " "), ("\u00a0", " "), ("ﬁ", "fi"),
         ("A\u030a", "Å"), ("¼", "1 4"), ("\t", " "), ("\u200b", ""), ("é", "e"), ("éé", "E"), ("H", "h"), ("He", "HE")]
EXTRA = ["<sep>", "a<sep>b", "WORDWORD", "a WORD b", "in the house", " the ", "<ctl>", "<tag><tag>", "a\n\n\nb", "x  y   z", "<0x0A>",
         "\ufdd0" + "5", "ＷＯＲＤ", "①  ②", "a\u3000b", "\u00a0\u00a0a", "¼", "ﬁne", "Ⅷ", "ẛ̣", "A\u030a"]


def rules_file(folder):
    path = pathlib.Path(folder) / "rules.tsv"
    spell = lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{spell(a)}\t{spell(b)}\n" for a, b in RULES))
    return str(path)


def train(name, options, lines):
    out = io.BytesIO()
    folder = tempfile.TemporaryDirectory()
    if "normalization_rule_tsv" in options:
        options = {**options, "normalization_rule_tsv": rules_file(folder.name)}
    # Characters that prose lacks, so that merges and scores exist for them too.
    lines = lines + ["äöü é è 你好 日本語"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, character_coverage=0.9995, num_threads=1, minloglevel=2,
        self_test_sample_size=0, hard_vocab_limit=False, **options)
    (HERE / f"{name}.model").write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def record(processor, all_texts):
    random.seed(3)
    cases = []
    for text in all_texts:
        ids = processor.encode(text)
        cases.append({"text": text, "ids": ids, "text_back": processor.decode(ids)})
    # Decoding also has to stand sequences that no text encodes to: lone bytes, control pieces in the middle.
    size = processor.vocab_size()
    wild = []
    for _ in range(120):
        ids = [random.randrange(min(size, 300) if random.random() < 0.6 else size) for _ in range(random.randint(1, 12))]
        wild.append({"ids": ids, "text_back": processor.decode(ids)})
    return {"vocab_size": size, "cases": cases, "wild": wild}


def main():
    path = sys.argv[1]
    novels = (lzma.open(path, "rt") if path.endswith(".xz") else open(path)).read()
    lines = [line for line in novels[:300_000].replace("\0", "\n").splitlines() if line.strip()]
    all_texts = EXTRA + texts(novels, 12)
    result = {"sentencepiece": sentencepiece.__version__}
    for name, options in MODELS.items():
        result[name] = record(train(name, options, lines), all_texts)
    (HERE / "spm_goldens.json").write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=True))


main()
