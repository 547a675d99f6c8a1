//! A model's tokenizer: tokenizer.json through the `tokenizers` crate, SentencePiece's tokenizer.model, or GPT-2's
//! vocab.json with merges.txt, whichever the folder has first.

use std::collections::HashSet;
use std::sync::OnceLock;

use serde_json::{json, Value as Json};
use tokenizers::normalizer::Range;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetType, PostProcessor, PreTokenizedString,
    PreTokenizer, Token, Tokenizer,
};

use crate::added_tokens::{AddedToken, AddedTokens, Pass, Piece};
use crate::assets::{failure, Assets, Config, ConfigToken, Failure};
use crate::chat::Guard;
use crate::decode::{self, Decoding, Rule, Stream};
use crate::sentencepiece::{Kind, SentencePiece};
use crate::template::{RenderInput, Template};

const TOKENIZER_JSON: &str = "tokenizer.json";
const TOKENIZER_MODEL: &str = "tokenizer.model";
/// Ids index tables of this size in other places; real vocabularies stay below 2^20.
const MAX_ID: u32 = 1 << 24;

enum Backend {
    HuggingFace(Box<Tokenizer>),
    SentencePiece(Box<SentencePiece>, Pieces),
}

/// How the pieces between added tokens are treated by SentencePiece models.
struct Pieces {
    /// Every piece gets the dummy prefix, not only the first one.
    prefix_each: bool,
}

/// What stands around a text that is not part of a chat.
enum Around {
    /// What tokenizer.json says.
    PostProcessor,
    /// What tokenizer_config.json says.
    Explicit { before: Option<u32>, after: Option<u32> },
}

pub struct Text {
    backend: Backend,
    added: AddedTokens,
    around: Around,
    rule: Rule,
    guard: OnceLock<Result<Guard, String>>,
    pub named: Vec<(String, String)>,
    pub templates: Vec<Template>,
    pub vocab_size: u32,
}

/// Text to encode, in which a sentinel character breaks up what must not become a special token.
pub struct Marked<'a> {
    pub text: &'a str,
    pub sentinel: Option<char>,
}

impl Text {
    pub fn open(assets: &Assets) -> Result<Self, Failure> {
        let config = Config::read(assets)?;
        let (backend, tokens, rule) = if let Some(bytes) = assets.get(TOKENIZER_JSON) {
            open_json(bytes, TOKENIZER_JSON, &config)?
        } else if let Some(bytes) = assets.get(TOKENIZER_MODEL) {
            open_sentencepiece(bytes, &config)?
        } else if let (Some(vocab), Some(merges)) =
            (assets.get("vocab.json"), assets.get("merges.txt"))
        {
            open_json(&gpt2_json(vocab, merges, config.add_prefix_space)?, "vocab.json", &config)?
        } else {
            let wanted = "no tokenizer.json, tokenizer.model or vocab.json with merges.txt";
            return Err(failure("", wanted));
        };
        let mut text = Text {
            vocab_size: 0,
            added: AddedTokens::new(tokens).map_err(|e| failure(TOKENIZER_JSON, e))?,
            around: Around::PostProcessor,
            guard: OnceLock::new(),
            named: Vec::new(),
            templates: Vec::new(),
            backend,
            rule,
        };
        text.vocab_size = text.count_ids();
        text.around = text.around(&config, assets.get(TOKENIZER_JSON).is_some());
        text.named = match &text.backend {
            Backend::SentencePiece(model, _) => named_pieces(model, config.named),
            Backend::HuggingFace(_) => config.named,
        };
        text.templates = config.templates;
        Ok(text)
    }

    fn count_ids(&self) -> u32 {
        let added = self.added.iter().map(|t| t.id + 1).max().unwrap_or(0);
        let model = match &self.backend {
            Backend::HuggingFace(t) => t.get_model().get_vocab_size() as u32,
            Backend::SentencePiece(model, _) => model.pieces.len() as u32,
        };
        added.max(model)
    }

    fn around(&self, config: &Config, has_json: bool) -> Around {
        let id = |name: &str| config.named(name).and_then(|content| self.token_id(content));
        match &self.backend {
            // As in transformers, tokenizer.json says all, whatever the configuration says.
            Backend::HuggingFace(_) if has_json => Around::PostProcessor,
            Backend::HuggingFace(_) => Around::Explicit {
                before: id("bos_token").filter(|_| config.add_bos == Some(true)),
                after: id("eos_token").filter(|_| config.add_eos == Some(true)),
            },
            Backend::SentencePiece(model, _) => {
                let is_t5 = config.class.starts_with("T5") || config.class.starts_with("MT5");
                let valid = |id: i32| {
                    u32::try_from(id).ok().filter(|id| (*id as usize) < model.pieces.len())
                };
                let bos = id("bos_token").or(valid(model.bos_id));
                let eos = id("eos_token").or(valid(model.eos_id));
                Around::Explicit {
                    before: bos.filter(|_| config.add_bos.unwrap_or(!is_t5)),
                    after: eos.filter(|_| config.add_eos.unwrap_or(is_t5)),
                }
            }
        }
    }

    /// `add_special`: put around the text what the model expects there. `allow_special`: special tokens may stand in
    /// the text.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        allow_special: bool,
    ) -> Result<Vec<u32>, String> {
        let pass = Pass::Raw { special: allow_special };
        self.encode_pieces(text, self.added.split(text, pass), allow_special, add_special)
    }

    /// Encodes a rendered chat: nothing is put around it, and what the sentinel breaks up stays text.
    pub fn encode_marked(&self, marked: &Marked) -> Result<Vec<u32>, String> {
        let Some(sentinel) = marked.sentinel else { return self.encode(marked.text, false, true) };
        let mut pieces = self.added.split(marked.text, Pass::RawAllSpecial);
        let mut plain = String::with_capacity(marked.text.len());
        for piece in &mut pieces {
            let start = plain.len();
            plain.extend(marked.text[piece.start..piece.end].chars().filter(|c| *c != sentinel));
            (piece.start, piece.end) = (start, plain.len());
        }
        pieces.retain(|p| p.start < p.end);
        self.encode_pieces(&plain, pieces, false, false)
    }

    /// `special`: special tokens may still be found after normalization.
    fn encode_pieces(
        &self,
        text: &str,
        pieces: Vec<Piece>,
        special: bool,
        add_special: bool,
    ) -> Result<Vec<u32>, String> {
        let ids = match &self.backend {
            Backend::HuggingFace(tokenizer) => {
                let post_process = add_special && matches!(self.around, Around::PostProcessor);
                self.run_pipeline(tokenizer, text, pieces, special, post_process)
                    .map_err(|e| e.to_string())?
            }
            Backend::SentencePiece(model, rule) => {
                let mut ids = Vec::new();
                for piece in pieces {
                    match piece.id {
                        Some(id) => ids.push(id),
                        None => {
                            let prefix = rule.prefix_each || piece.start == 0;
                            model.encode(&text[piece.start..piece.end], prefix, &mut ids)?;
                        }
                    }
                }
                ids
            }
        };
        Ok(match &self.around {
            Around::Explicit { before, after } if add_special => {
                before.iter().copied().chain(ids).chain(*after).collect()
            }
            _ => ids,
        })
    }

    /// The pipeline of the `tokenizers` crate, with the added tokens found by us.
    fn run_pipeline(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        pieces: Vec<Piece>,
        special: bool,
        post_process: bool,
    ) -> tokenizers::Result<Vec<u32>> {
        let mut parts = PreTokenizedString::from(text);
        parts.split(|_, whole| Ok(self.cut(&whole, &pieces)))?;
        parts.split(|_, mut part| {
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut part)?;
            }
            let pieces = self.added.split(part.get(), Pass::Normalized { special });
            Ok(self.cut(&part, &pieces))
        })?;
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        parts.tokenize(|part| tokenizer.get_model().tokenize(part.get()))?;
        let mut encoding = parts.into_encoding(None, 0, OffsetType::Byte)?;
        if let Some(processor) = tokenizer.get_post_processor() {
            encoding = processor.process(encoding, None, post_process)?;
        }
        Ok(encoding.get_ids().to_vec())
    }

    fn cut(
        &self,
        part: &NormalizedString,
        pieces: &[Piece],
    ) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
        let slice = |piece: &Piece| {
            let slice = part.slice(Range::Normalized(piece.start..piece.end))?;
            let token = |id: u32| {
                let content = self.added.get(id).map_or(String::new(), |t| t.content.clone());
                vec![Token::new(id, content, (0, slice.len()))]
            };
            let tokens = piece.id.map(token);
            Some((slice, tokens))
        };
        pieces.iter().filter_map(slice).collect()
    }

    // ---- from ids to text ----

    pub fn token_id(&self, content: &str) -> Option<u32> {
        let added = self.added.iter().find(|t| t.content == content).map(|t| t.id);
        added.or_else(|| match &self.backend {
            Backend::HuggingFace(t) => t.get_model().token_to_id(content),
            Backend::SentencePiece(model, _) => model.id_of(content),
        })
    }

    /// The token as the vocabulary spells it; added tokens that are matched in normalized text, as they are there.
    pub fn token_text(&self, id: u32) -> Option<String> {
        let added = self.added.get(id).map(|t| t.pattern.clone());
        added.or_else(|| match &self.backend {
            Backend::HuggingFace(t) => t.get_model().id_to_token(id),
            Backend::SentencePiece(model, _) => {
                model.pieces.get(id as usize).map(|p| p.text.clone())
            }
        })
    }

    // ---- for chats ----

    /// Where user text could take part in a special token.
    pub fn guard(&self) -> Result<&Guard, String> {
        let special = self.added.iter().filter(|t| t.special && !t.content.is_empty());
        let guard = self.guard.get_or_init(|| Guard::new(special.map(|t| t.content.as_str())));
        guard.as_ref().map_err(|e| e.clone())
    }

    /// The special tokens of a rendered chat, in order.
    pub fn special_ids(&self, text: &str) -> Vec<u32> {
        let pieces = self.added.split(text, Pass::RawAllSpecial);
        let is_special = |id: &u32| self.added.get(*id).is_some_and(|t| t.special);
        pieces.iter().filter_map(|p| p.id).filter(is_special).collect()
    }

    /// `bos_token` and its like are variables of every template.
    pub fn add_named_tokens(&self, input: &mut RenderInput) {
        for (name, content) in &self.named {
            input.variables.entry(name).or_insert_with(|| Json::from(content.as_str()));
        }
    }

    fn decoding(&self) -> Decoding<'_> {
        let (decoder, sentencepiece) = match &self.backend {
            Backend::HuggingFace(t) => (t.get_decoder(), None),
            Backend::SentencePiece(model, _) => (None, Some(model.as_ref())),
        };
        Decoding { rule: &self.rule, decoder, sentencepiece }
    }

    /// The text that one more token completes. An id that the vocabulary lacks has no text, as in transformers.
    pub fn push(&self, stream: &mut Stream, id: u32, skip_special: bool) -> Result<String, String> {
        let added = self.added.get(id);
        if added.is_some_and(|t| t.special && skip_special) {
            return Ok(String::new());
        }
        let Some(text) = self.token_text(id) else { return Ok(String::new()) };
        self.decoding().push(stream, decode::Token { id, text: &text, is_added: added.is_some() })
    }

    pub fn flush(&self, stream: &mut Stream) -> Result<String, String> {
        self.decoding().flush(stream)
    }

    pub fn decode(
        &self,
        ids: impl Iterator<Item = u32>,
        skip_special: bool,
    ) -> Result<String, String> {
        let mut stream = Stream::default();
        let mut out = String::new();
        for id in ids {
            out.push_str(&self.push(&mut stream, id, skip_special)?);
        }
        out.push_str(&self.flush(&mut stream)?);
        Ok(out)
    }
}

// ---- opening ----------------------------------------------------------------------------------------------------

type Opened = (Backend, Vec<AddedToken>, Rule);

fn open_json(bytes: &[u8], file: &str, config: &Config) -> Result<Opened, Failure> {
    check_patterns(bytes).map_err(|e| failure(file, e))?;
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| failure(file, e))?;
    let mut tokens = Vec::new();
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        tokens.push(AddedToken {
            id,
            pattern: token.content.clone(),
            content: token.content,
            special: token.special,
            normalized: token.normalized,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
        });
    }
    add_config_tokens(
        &mut tokens,
        &config.tokens,
        |content| tokenizer.token_to_id(content),
        config,
    )?;
    for token in tokens.iter_mut().filter(|t| t.normalized) {
        if let Some(normalizer) = tokenizer.get_normalizer() {
            let mut normalized = NormalizedString::from(token.content.as_str());
            normalizer.normalize(&mut normalized).map_err(|e| failure(file, e))?;
            token.pattern = normalized.get().to_string();
        }
    }
    let rule = Rule::of(tokenizer.get_decoder());
    Ok((Backend::HuggingFace(Box::new(tokenizer)), tokens, rule))
}

fn open_sentencepiece(bytes: &[u8], config: &Config) -> Result<Opened, Failure> {
    let model = SentencePiece::read(bytes).map_err(|e| failure(TOKENIZER_MODEL, e))?;
    let mut tokens = Vec::new();
    for (i, piece) in model.pieces.iter().enumerate().filter(|(_, p)| p.kind == Kind::Control) {
        tokens.push(plain_token(i as u32, &piece.text, true));
    }
    add_config_tokens(&mut tokens, &config.tokens, |content| model.id_of(content), config)?;
    let pieces = Pieces { prefix_each: config.legacy };
    Ok((Backend::SentencePiece(Box::new(model), pieces), tokens, Rule::SentencePiece))
}

fn plain_token(id: u32, content: &str, special: bool) -> AddedToken {
    AddedToken {
        id,
        content: content.into(),
        pattern: content.into(),
        special,
        normalized: false,
        single_word: false,
        lstrip: false,
        rstrip: false,
    }
}

/// Adds the tokens that the configuration names and `tokens` lacks; one that has no id anywhere is left out.
fn add_config_tokens(
    tokens: &mut Vec<AddedToken>,
    wanted: &[ConfigToken],
    find: impl Fn(&str) -> Option<u32>,
    config: &Config,
) -> Result<(), Failure> {
    let mut known: HashSet<String> = tokens.iter().map(|t| t.content.clone()).collect();
    let special: HashSet<&str> =
        wanted.iter().filter(|t| t.special).map(|t| t.content.as_str()).collect();
    for token in tokens.iter_mut() {
        token.special |= config.named.iter().any(|(_, content)| *content == token.content);
    }
    // Those with flags first: a bare name says less.
    let (full, bare): (Vec<_>, Vec<_>) = wanted.iter().partition(|t| t.id.is_some());
    for token in full.into_iter().chain(bare) {
        let Some(id) = token.id.or_else(|| find(&token.content)) else { continue };
        if token.content.is_empty() || !known.insert(token.content.clone()) {
            continue;
        }
        if id >= MAX_ID {
            return Err(failure("tokenizer_config.json", format!("token id {id} is too large")));
        }
        let is_special = special.contains(token.content.as_str());
        tokens.push(AddedToken {
            normalized: token.flag("normalized", !is_special),
            single_word: token.flag("single_word", false),
            lstrip: token.flag("lstrip", false),
            rstrip: token.flag("rstrip", false),
            ..plain_token(id, &token.content, is_special)
        });
    }
    match tokens.iter().find(|t| t.id >= MAX_ID) {
        Some(token) => Err(failure(TOKENIZER_JSON, format!("token id {} is too large", token.id))),
        None => Ok(()),
    }
}

/// A SentencePiece file names its own special pieces where the configuration does not.
fn named_pieces(model: &SentencePiece, mut named: Vec<(String, String)>) -> Vec<(String, String)> {
    let own =
        [("bos_token", model.bos_id), ("eos_token", model.eos_id), ("pad_token", model.pad_id)];
    for (name, id) in own.into_iter().chain([("unk_token", model.unk_id as i32)]) {
        let piece = usize::try_from(id).ok().and_then(|id| model.pieces.get(id));
        if let Some(piece) = piece.filter(|_| !named.iter().any(|(n, _)| n == name)) {
            named.push((name.into(), piece.text.clone()));
        }
    }
    named
}

/// The tokenizer.json that GPT-2's two older files stand for.
fn gpt2_json(vocab: &[u8], merges: &[u8], add_prefix_space: bool) -> Result<Vec<u8>, Failure> {
    let vocab: Json = serde_json::from_slice(vocab)
        .map_err(|e| failure("vocab.json", format!("not valid JSON: {e}")))?;
    let merges =
        std::str::from_utf8(merges).map_err(|_| failure("merges.txt", "the file is not UTF-8"))?;
    let is_pair = |line: &&str| !line.is_empty() && !line.starts_with("#version");
    let merges: Vec<&str> = merges.lines().filter(is_pair).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
                            "use_regex": true});
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    Ok(whole.to_string().into_bytes())
}

/// Refuses regular expressions whose counted repetitions multiply to more than a machine has memory for.
fn check_patterns(tokenizer_json: &[u8]) -> Result<(), String> {
    const LARGEST: u64 = 10_000;
    let text = std::str::from_utf8(tokenizer_json).map_err(|_| "the file is not UTF-8")?;
    for (at, _) in text.match_indices("\"Regex\"") {
        let Some(pattern) = text[at + 7..].trim_start().strip_prefix(':') else { continue };
        let pattern = json_string_at(pattern.trim_start());
        let counts = pattern.split('{').skip(1).filter_map(|tail| {
            let inside = tail.split('}').next()?;
            inside.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max()
        });
        let product = counts.fold(1u64, |product, n| product.saturating_mul(n.max(1)));
        if product > LARGEST || pattern.len() > 1 << 14 {
            return Err("a regular expression is too large".into());
        }
    }
    Ok(())
}

/// The raw inside of the JSON string that `text` begins with.
fn json_string_at(text: &str) -> &str {
    let Some(inside) = text.strip_prefix('"') else { return "" };
    let mut escaped = false;
    for (i, byte) in inside.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return &inside[..i],
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    inside
}
