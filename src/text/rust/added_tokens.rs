//! Finding added tokens (special ones and others) in text, by the rules of Hugging Face's tokenizers, but with a choice
//! per call whether special tokens are seen at all: text that a user wrote must never turn into them.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

/// A token that is matched in the text before anything else happens to it.
#[derive(Clone, Debug)]
pub struct AddedToken {
    pub id: u32,
    pub content: String,
    /// What is searched for in normalized text; equal to `content` unless `normalized`.
    pub pattern: String,
    pub special: bool,
    pub normalized: bool,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
}

/// A stretch of text: an added token's, or ordinary text between them.
#[derive(Debug, PartialEq)]
pub struct Piece {
    pub id: Option<u32>,
    pub start: usize,
    pub end: usize,
}

/// Which text is searched, and whether special tokens are seen.
#[derive(Clone, Copy, PartialEq)]
pub enum Pass {
    /// Text as written: tokens that are not `normalized`.
    Raw { special: bool },
    /// As Raw, special ones included, whatever their `normalized` says: for text in which a user's special tokens have
    /// been broken up, so that no later pass may look for special tokens. A token of one character cannot be broken up
    /// and is left out.
    RawAllSpecial,
    /// Text after normalization: tokens that are `normalized`.
    Normalized { special: bool },
}

#[derive(Default)]
pub struct AddedTokens {
    tokens: Vec<AddedToken>,
    by_id: HashMap<u32, usize>,
    raw: [Matcher; 2],
    raw_all_special: Matcher,
    normalized: [Matcher; 2],
}

#[derive(Default)]
struct Matcher {
    automaton: Option<AhoCorasick>,
    /// Pattern number -> index into `AddedTokens::tokens`.
    indices: Vec<usize>,
}

impl Matcher {
    fn new(tokens: &[AddedToken], keep: impl Fn(&AddedToken) -> bool) -> Result<Self, String> {
        let is_kept = |i: &usize| keep(&tokens[*i]) && !tokens[*i].pattern.is_empty();
        let indices: Vec<usize> = (0..tokens.len()).filter(is_kept).collect();
        if indices.is_empty() {
            return Ok(Matcher::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .start_kind(StartKind::Both)
            .build(indices.iter().map(|i| &tokens[*i].pattern))
            .map_err(|e| format!("added tokens: {e}"))?;
        Ok(Matcher { automaton: Some(automaton), indices })
    }
}

impl AddedTokens {
    pub fn new(tokens: Vec<AddedToken>) -> Result<Self, String> {
        let by_id = tokens.iter().enumerate().map(|(i, t)| (t.id, i)).collect();
        Ok(AddedTokens {
            raw: [
                Matcher::new(&tokens, |t| !t.normalized && !t.special)?,
                Matcher::new(&tokens, |t| !t.normalized)?,
            ],
            raw_all_special: Matcher::new(&tokens, |t| {
                if t.special {
                    t.pattern.chars().nth(1).is_some()
                } else {
                    !t.normalized
                }
            })?,
            normalized: [
                Matcher::new(&tokens, |t| t.normalized && !t.special)?,
                Matcher::new(&tokens, |t| t.normalized)?,
            ],
            by_id,
            tokens,
        })
    }

    pub fn get(&self, id: u32) -> Option<&AddedToken> {
        self.by_id.get(&id).map(|i| &self.tokens[*i])
    }

    pub fn iter(&self) -> impl Iterator<Item = &AddedToken> {
        self.tokens.iter()
    }

    /// Bytes of the longest raw token that is not special and that `text` begins with.
    pub fn longest_prefix(&self, text: &str) -> Option<usize> {
        let automaton = self.raw[0].automaton.as_ref()?;
        automaton.find(Input::new(text).anchored(Anchored::Yes)).map(|m| m.end())
    }

    /// Cuts `text` into added tokens and what lies between; pieces cover the text, none is empty.
    pub fn split(&self, text: &str, pass: Pass) -> Vec<Piece> {
        let matcher = match pass {
            Pass::Raw { special } => &self.raw[special as usize],
            Pass::RawAllSpecial => &self.raw_all_special,
            Pass::Normalized { special } => &self.normalized[special as usize],
        };
        let mut pieces = Vec::new();
        let mut done = 0;
        for found in matcher.automaton.iter().flat_map(|a| a.find_iter(text)) {
            let token = &self.tokens[matcher.indices[found.pattern().as_usize()]];
            let (mut start, mut end) = (found.start(), found.end());
            // A match before may have taken blanks that this one begins with.
            if start < done || (token.single_word && touches_word(text, start, end)) {
                continue;
            }
            if token.lstrip {
                start = text[done..start].trim_end().len() + done;
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                pieces.push(Piece { id: None, start: done, end: start });
            }
            pieces.push(Piece { id: Some(token.id), start, end });
            done = end;
        }
        if done < text.len() {
            pieces.push(Piece { id: None, start: done, end: text.len() });
        }
        pieces
    }
}

fn touches_word(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    is_word(text[..start].chars().next_back()) || is_word(text[end..].chars().next())
}
