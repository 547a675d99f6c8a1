//! From token ids to text, one token at a time: the pieces together are what decoding all ids at once gives, no piece
//! ends inside a UTF-8 character, and a token costs the same wherever it stands.

use serde_json::Value as Json;
use tokenizers::{Decoder, DecoderWrapper};

use crate::sentencepiece::SentencePiece;

/// How the text of a token follows from the token, as far as its place matters.
pub enum Rule {
    /// Every character of a token stands for a byte.
    ByteLevel,
    /// Replacements inside a token, then runs of byte tokens, then the first characters of the whole text cut off.
    Chain(Chain),
    /// The decoder looks at each token by itself, and whether it is the first.
    Local,
    /// Tokens end in a suffix that becomes a blank, except at the end of the text.
    WordEnd(String),
    /// No decoder: tokens with blanks between them.
    Blanks,
    /// Anything else needs all tokens at once: nothing is given before the end.
    Whole,
    SentencePiece,
}

#[derive(Default)]
pub struct Chain {
    replacements: Vec<(String, String)>,
    byte_fallback: bool,
    strip: Option<(char, usize)>,
}

impl Rule {
    pub fn of(decoder: Option<&DecoderWrapper>) -> Rule {
        let Some(decoder) = decoder else { return Rule::Blanks };
        match decoder {
            DecoderWrapper::ByteLevel(_) => Rule::ByteLevel,
            DecoderWrapper::WordPiece(_) | DecoderWrapper::Metaspace(_) => Rule::Local,
            DecoderWrapper::BPE(d) if !d.suffix.is_empty() => Rule::WordEnd(d.suffix.clone()),
            _ => {
                let json = serde_json::to_value(decoder).unwrap_or(Json::Null);
                chain(&json).map_or(Rule::Whole, Rule::Chain)
            }
        }
    }
}

/// `Replace* ByteFallback? Fuse? Strip?` in this order; `Strip` only from the front, and after `Fuse`.
fn chain(decoder: &Json) -> Option<Chain> {
    let single = std::slice::from_ref(decoder);
    let steps = decoder.get("decoders").and_then(Json::as_array).map_or(single, Vec::as_slice);
    let mut chain = Chain::default();
    let mut fused = false;
    for step in steps {
        let clean = !fused && !chain.byte_fallback && chain.strip.is_none();
        match step.get("type").and_then(Json::as_str)? {
            "Replace" if clean => {
                let pattern =
                    step.get("pattern")?.get("String")?.as_str().filter(|p| !p.is_empty())?;
                chain
                    .replacements
                    .push((pattern.to_string(), step.get("content")?.as_str()?.to_string()));
            }
            "ByteFallback" if clean => chain.byte_fallback = true,
            "Fuse" if !fused => fused = true,
            "Strip" if fused && chain.strip.is_none() && step.get("stop")?.as_u64()? == 0 => {
                let content = step.get("content")?.as_str()?.chars().next()?;
                chain.strip = Some((content, step.get("start")?.as_u64()? as usize));
            }
            _ => return None,
        }
    }
    Some(chain)
}

/// What a stream remembers between tokens.
#[derive(Default)]
pub struct Stream {
    /// Bytes of a character (or of a run of byte tokens) that is not complete.
    bytes: Vec<u8>,
    /// Every token so far, for a decoder that needs them all.
    tokens: Vec<String>,
    /// The end of the last token, where its text depends on whether another follows.
    held: String,
    count: usize,
    stripped: usize,
    text_begun: bool,
}

/// One token as the stream sees it.
pub struct Token<'a> {
    pub id: u32,
    pub text: &'a str,
    pub is_added: bool,
}

pub struct Decoding<'a> {
    pub rule: &'a Rule,
    pub decoder: Option<&'a DecoderWrapper>,
    pub sentencepiece: Option<&'a SentencePiece>,
}

impl Decoding<'_> {
    pub fn push(&self, stream: &mut Stream, token: Token) -> Result<String, String> {
        let out = match self.rule {
            Rule::ByteLevel => {
                push_byte_level(&mut stream.bytes, token.text);
                take_text(&mut stream.bytes, false)
            }
            Rule::Chain(chain) => push_chain(chain, stream, token.text),
            Rule::Local => self.local(stream.count == 0, token.text)?,
            Rule::WordEnd(suffix) => {
                let mut out = std::mem::take(&mut stream.held).replace(suffix.as_str(), " ");
                // What begins with the suffix waits: at the end of the text the suffix is nothing, elsewhere a blank.
                let (text, waiting) = token
                    .text
                    .split_at(token.text.find(suffix.as_str()).unwrap_or(token.text.len()));
                out.push_str(text);
                stream.held = waiting.to_string();
                out
            }
            Rule::Blanks if stream.count > 0 => format!(" {}", token.text),
            Rule::Blanks => token.text.to_string(),
            Rule::Whole => {
                stream.tokens.push(token.text.to_string());
                String::new()
            }
            Rule::SentencePiece => self.push_sentencepiece(stream, token),
        };
        stream.count += 1;
        Ok(out)
    }

    /// What was held back; the stream is new afterwards.
    pub fn flush(&self, stream: &mut Stream) -> Result<String, String> {
        let out = match self.rule {
            Rule::Chain(chain) => {
                let run = end_of_run(&mut stream.bytes);
                strip(chain, stream, &run)
            }
            Rule::Whole if !stream.tokens.is_empty() => {
                let decoder = self.decoder.ok_or("no decoder")?;
                decoder.decode(std::mem::take(&mut stream.tokens)).map_err(|e| e.to_string())?
            }
            Rule::WordEnd(suffix) => stream.held.replace(suffix.as_str(), ""),
            Rule::SentencePiece => take_text_bytewise(&mut stream.bytes, true),
            _ => take_text(&mut stream.bytes, true),
        };
        *stream = Stream::default();
        Ok(out)
    }

    fn local(&self, is_first: bool, text: &str) -> Result<String, String> {
        let decoder = self.decoder.ok_or("no decoder")?;
        let mut tokens = if is_first { vec![] } else { vec![String::new()] };
        tokens.push(text.to_string());
        let decoded = decoder.decode_chain(tokens).map_err(|e| e.to_string())?;
        Ok(decoded.into_iter().next_back().unwrap_or_default())
    }

    fn push_sentencepiece(&self, stream: &mut Stream, token: Token) -> String {
        let Some(model) = self.sentencepiece else { return String::new() };
        if !token.is_added {
            if let Some(byte) = model.byte(token.id) {
                stream.bytes.push(byte);
                let out = take_text_bytewise(&mut stream.bytes, false);
                stream.text_begun |= !out.is_empty();
                return out;
            }
        }
        let mut out = take_text_bytewise(&mut stream.bytes, true);
        stream.text_begun |= !out.is_empty();
        let mut at_start = !stream.text_begun;
        if token.is_added {
            out.push_str(token.text);
            at_start &= token.text.is_empty();
        } else {
            out.push_str(&model.surface(token.id, &mut at_start));
        }
        stream.text_begun = !at_start;
        out
    }
}

fn push_chain(chain: &Chain, stream: &mut Stream, token: &str) -> String {
    let mut text = std::borrow::Cow::Borrowed(token);
    for (pattern, content) in &chain.replacements {
        if text.contains(pattern.as_str()) {
            text = text.replace(pattern.as_str(), content).into();
        }
    }
    if chain.byte_fallback {
        if let Some(byte) = byte_token(&text) {
            stream.bytes.push(byte);
            return String::new();
        }
    }
    let mut run = end_of_run(&mut stream.bytes);
    run.push_str(&text);
    strip(chain, stream, &run)
}

/// `<0x41>` stands for a byte.
fn byte_token(token: &str) -> Option<u8> {
    let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    is_byte.then(|| token.get(3..5)).flatten().and_then(|d| u8::from_str_radix(d, 16).ok())
}

/// A run of byte tokens is text as a whole or, as in the `tokenizers` crate, not at all.
fn end_of_run(bytes: &mut Vec<u8>) -> String {
    let run = std::mem::take(bytes);
    let count = run.len();
    String::from_utf8(run).unwrap_or_else(|_| "\u{fffd}".repeat(count))
}

fn strip(chain: &Chain, stream: &mut Stream, text: &str) -> String {
    let mut rest = text;
    if let Some((content, limit)) = chain.strip {
        while !stream.text_begun && stream.stripped < limit {
            let Some(shorter) = rest.strip_prefix(content) else { break };
            rest = shorter;
            stream.stripped += 1;
        }
    }
    stream.text_begun |= !rest.is_empty();
    rest.to_string()
}

/// The characters of GPT-2's byte alphabet; a token with any other character stands for itself.
fn push_byte_level(bytes: &mut Vec<u8>, token: &str) {
    let before = bytes.len();
    for c in token.chars() {
        match byte_of_char(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// Printable Latin-1 characters stand for themselves, the 68 other bytes for U+0100 to U+0143 in order.
fn byte_of_char(c: char) -> Option<u8> {
    let code = c as u32;
    let is_itself = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match code {
        0..=0xff if is_itself(code) => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Takes the complete characters off `bytes`; what can never become one turns into U+FFFD.
fn take_text(bytes: &mut Vec<u8>, at_end: bool) -> String {
    let mut out = String::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                rest = &[];
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(valid));
                rest = invalid;
                match error.error_len() {
                    None if !at_end => break,
                    length => {
                        out.push('\u{fffd}');
                        rest = &rest[length.unwrap_or(rest.len())..];
                    }
                }
            }
        }
    }
    let kept = rest.len();
    bytes.drain(..bytes.len() - kept);
    out
}

/// As `take_text`, by SentencePiece's rule: each byte that is in no character is one U+FFFD.
fn take_text_bytewise(bytes: &mut Vec<u8>, at_end: bool) -> String {
    let mut out = String::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (valid, incomplete) = match std::str::from_utf8(rest) {
            Ok(_) => (rest.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_none()),
        };
        out.push_str(&String::from_utf8_lossy(&rest[..valid]));
        rest = &rest[valid..];
        if rest.is_empty() || (incomplete && !at_end) {
            break;
        }
        out.push('\u{fffd}');
        rest = &rest[1..];
    }
    let kept = rest.len();
    bytes.drain(..bytes.len() - kept);
    out
}
