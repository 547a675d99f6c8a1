"""Records what transformers' AutoTokenizer makes of many texts, for the bundled models and for tiny tokenizers in the
style of well-known families, which it also trains (their pre-tokenizer patterns are facts of those families).

    make_tokenizer_goldens.py NOVELS.txt[.xz]      needs transformers, tokenizers, sentencepiece

NOVELS is English prose, only to train on and to cut texts from; the committed files were made from public-domain
novels (E. M. Forster and others, Project Gutenberg).
"""
import json
import lzma
import pathlib
import sys

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from golden_texts import texts

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parents[2] / "models"

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
            "[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
# A token of each kind: special, plain, one that takes the blanks around it, one that stands only between words.
ADDED = [AddedToken("<|end|>", special=True), AddedToken("<|user|>", special=True, rstrip=True),
         AddedToken("<mask>", special=True, lstrip=True), AddedToken("<tool>", normalized=False),
         AddedToken("wordtok", single_word=True, normalized=True)]


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level_bpe(pre, lines, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def byte_level(*patterns):
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*map(split, patterns), rest])


def llama2_bpe(lines):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, limit_alphabet=60, show_progress=False,
                                  max_token_length=8)
    tokenizer.train_from_iterator(lines, trainer)
    # Byte tokens are ordinary entries of the vocabulary, not added ones.
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def bert_word_piece(lines):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                        show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def metaspace_unigram(lines):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>", "</s>"], unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def word_end_bpe(lines):
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def tiny_tokenizers(lines):
    return {
        "gpt2": byte_level_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), lines),
        "llama3": byte_level_bpe(byte_level(LLAMA3), lines),
        "qwen2": byte_level_bpe(byte_level(QWEN2), lines, normalizers.NFC()),
        "o200k": byte_level_bpe(byte_level(O200K), lines),
        "deepseek": byte_level_bpe(byte_level(*DEEPSEEK), lines),
        "llama2": llama2_bpe(lines),
        "bert": bert_word_piece(lines),
        "unigram": metaspace_unigram(lines),
        "word-end": word_end_bpe(lines),
    }


def save_tiny(name, tokenizer):
    folder = HERE / "tiny" / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.add_tokens([t for t in ADDED if not t.special])
    tokenizer.add_special_tokens([t for t in ADDED if t.special])
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False,
                                                      separators=(",", ":")))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    if name == "llama3":
        config["add_eos_token"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder


def record(folder, all_texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    cases = []
    for text in all_texts:
        ids = tokenizer.encode(text)
        plain = tokenizer.encode(text, add_special_tokens=False)
        # Special tokens in the text stay text.
        apart = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        case = {"text": text, "ids": ids, "text_back": tokenizer.decode(ids, skip_special_tokens=True)}
        if plain != ids:
            case["plain"] = plain
        if apart != plain:
            case["apart"] = apart
        with_special = tokenizer.decode(ids, skip_special_tokens=False)
        if with_special != case["text_back"]:
            case["text_back_special"] = with_special
        cases.append(case)
    return {"bos_id": tokenizer.bos_token_id, "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id,
            "vocab_size": len(tokenizer), "cases": cases}


def main():
    path = sys.argv[1]
    novels = (lzma.open(path, "rt") if path.endswith(".xz") else open(path)).read()
    lines = novels[:200_000].splitlines()
    all_texts = texts(novels)
    folders = {name: MODELS / name for name in ["novelist-14m", "digits-t5"]}
    for name, tokenizer in tiny_tokenizers(lines).items():
        folders["tiny/" + name] = save_tiny(name, tokenizer)
    result = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "tokenizer": {}}
    for name, folder in folders.items():
        # The tiny ones are there for what differs between families: the odd texts, and less prose.
        chosen = all_texts if not name.startswith("tiny/") else all_texts[:-45]
        result["tokenizer"][name] = record(folder, chosen)
    (HERE / "tokenizer_goldens.json").write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=True))


main()
