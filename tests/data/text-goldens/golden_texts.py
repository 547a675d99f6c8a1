"""Texts that tokenizers are compared on: prose, and what breaks tokenizers."""
import random

ODD = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\n \n", "a", " a", "a ", "  a  b  ", "a\nb", "a\n\nb\n",
    "Hello, world!", "Hello   world", "HELLO WORLD", "hello_world", "camelCaseWord", "it's we'll I'M they'd've",
    "don't DON'T don’t", "1", "12", "123", "1234", "12345", "1234567890", "3.14159", "1,234.56", "1e-5", "0x1F",
    "²³½¾ Ⅷ ٣٤٥ १२३", "a1b2c3", "$100 €50 £20 ¥30", "50% off!", "foo@bar.com https://example.org/a?b=c&d=e#f",
    "def f(x):\n    return x ** 2  # square\n", "if (a && b || !c) { return a[0] == '\\n'; }", "<div class=\"x\">&amp;</div>",
    "{\"key\": [1, 2.5, null, true]}", "a\tb\t\tc", "trailing spaces   ", "   leading spaces", "\n\n\nthree newlines",
    "line\r\nline\rline\x0bline\x0cline", "tab\tnewline\nnull\x00bell\x07escape\x1bdel\x7f", "\x01\x02\x03",
    "café naïve résumé", "cafe\u0301 nai\u0308ve", "ÀÉÎÕÜ àéîõü ñ ç ß ÿ Ÿ", "İstanbul ıI", "Ǆ ǅ ǆ ﬁ ﬀ ﬃ ſ",
    "Привет, мир! Как дела?", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好，世界！",
    "今日は世界。カタカナ ひらがな", "안녕하세요 세계", "ｆｕｌｌｗｉｄｔｈ　ＴＥＸＴ １２３", "漢字とkanji混在text", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "𠜎𠜱𠝹",
    "😀", "😀😃😄", "a😀b", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷🇯🇵", "👍🏽 ok", "❤️ ❤", "☃ ★ ♫ ✓ → ∞ ≠ ∑", "smile :-) ;)",
    "\u00a0nbsp\u00a0", "\u2003em\u2009thin\u200bzero\u200cwidth\u200djoin\ufeffbom", "\u202eright\u202c", "soft\u00adhyphen",
    "\ue000private\uf8ff", "\ufdd0\ufdefnonchar\ufffe\uffff", "\ufffd replacement", "e\u0301\u0323\u0307 stacked", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L",
    "…—–-‐‑ “quotes” ‘single’ «guillemets» „low“", "''''''''''", "\"\"\"\"", "!!!!!!!!!!!!", "?!?!?!", "......", "-----------",
    "==========", "#### Title ####", "* item\n* item\n  * sub\n", "(((((())))))", "[[[]]]", "\\\\\\\\", "/////", "________", "~~~~",
    "a" * 50, "ab" * 30, " " * 20, "\n" * 10, "\t" * 7, "ha " * 20, "0" * 25, "🙂" * 6, "é" * 9, "字" * 9,
    "<s>", "</s>", "<unk>", "<pad>", "<|bos|>", "<|end|>", "<|user|> hi <|end|>", "<|endoftext|>", "[CLS] [SEP] [MASK]",
    "a<|end|>b", " <|end|> ", "<|end|><|end|>", "<|END|>", "<|en", "d|>", "<0x0A>", "<0x41>", "▁", "▁▁", "a▁b", "▁a", "Ġ", "Ċ", "##ing",
    "<tool>x</tool>", "  <tool>  ", "words<tool>words", "<mask>", " <mask> ", "x <mask>y", "wordtok", "awordtok wordtok. wordtok1",
    "The quick brown fox jumps over the lazy dog.", "Mr. & Mrs. O'Neill-Smith, Ph.D., arrived at 10:30 a.m.",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "x=1;y=2;z=x+y;print(z)", "SELECT * FROM t WHERE a<>'b';",
    "\n    indented\n\tmore\n        deep", "end with newline\n", "  \n  \n", "a  \n  b", "A\u0300 B\u0301", "ＡＢＣ", "①②③", "㎏ ㍿", "ﷺ",
    "ฺ  combining first", "\u0301", "a\u200d", "\u1100\u1161\u11a8", "각", "ㄱㄴㄷ",
]


def texts(novels, count=60, seed=7):
    """`count` stretches of prose of 5 to 400 characters, cut anywhere, after the odd ones."""
    random.seed(seed)
    cut = []
    for _ in range(count):
        start = random.randrange(len(novels) - 500)
        cut.append(novels[start:start + random.randint(5, 400)].replace("\0", " "))
    return ODD + cut
