//! SentencePiece `tokenizer.model` files: a reader for the protobuf, SentencePiece's own normalization, and its two
//! models mapped onto the Unigram and BPE models of the `tokenizers` crate.
//!
//! What the crate's models do not know is done here: pieces that text can never become (control, unknown, byte and
//! unused pieces) get names in the crate's vocabulary that no text holds; user-defined pieces are cut out of the text
//! first; characters outside the vocabulary become byte pieces.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::{Model, ModelWrapper};

use crate::added_tokens::{AddedToken, AddedTokens, Pass};

const SPACE: &str = "\u{2581}";
const UNKNOWN_SURFACE: &str = " \u{2047} ";
const MAX_PIECES: usize = 1 << 21;
const MAX_PIECE_BYTES: usize = 1 << 12;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
    Unused,
}

pub struct SpPiece {
    pub text: String,
    pub score: f32,
    pub kind: Kind,
}

pub struct SentencePiece {
    pub pieces: Vec<SpPiece>,
    pub bos_id: i32,
    pub eos_id: i32,
    pub pad_id: i32,
    pub unk_id: u32,
    model: ModelWrapper,
    normalizer: Normalizer,
    user_defined: AddedTokens,
    byte_ids: Option<Box<[u32; 256]>>,
}

// ---- protobuf ---------------------------------------------------------------------------------------------------

/// One field of a protobuf message: varints and fixed numbers as `number`, the rest as `bytes`.
struct Field<'a> {
    tag: u64,
    number: u64,
    bytes: &'a [u8],
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or("the file ends inside a number")?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is longer than ten bytes".into())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        if count > self.0.len() as u64 {
            return Err("a field is longer than the file".into());
        }
        let (taken, rest) = self.0.split_at(count as usize);
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<Field<'a>>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let mut field = Field { tag: key >> 3, number: 0, bytes: &[] };
        match key & 7 {
            0 => field.number = self.varint()?,
            1 => field.number = u64::from_le_bytes(self.take(8)?.try_into().unwrap_or_default()),
            2 => {
                let size = self.varint()?;
                field.bytes = self.take(size)?;
            }
            5 => {
                field.number =
                    u64::from(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()))
            }
            other => return Err(format!("unknown wire type {other}")),
        }
        Ok(Some(field))
    }
}

fn read_piece(bytes: &[u8]) -> Result<SpPiece, String> {
    let mut piece = SpPiece { text: String::new(), score: 0.0, kind: Kind::Normal };
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field.tag {
            1 if field.bytes.len() > MAX_PIECE_BYTES => {
                return Err("a piece is longer than 4096 bytes".into())
            }
            1 => {
                piece.text =
                    String::from_utf8(field.bytes.to_vec()).map_err(|_| "a piece is not UTF-8")?
            }
            2 => piece.score = f32::from_bits(field.number as u32),
            3 => {
                piece.kind = match field.number {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => return Err(format!("unknown piece type {other}")),
                }
            }
            _ => {}
        }
    }
    if piece.text.is_empty() || !piece.score.is_finite() {
        return Err("a piece is empty or has no finite score".into());
    }
    Ok(piece)
}

struct TrainerSpec {
    model_type: u64,
    bos_id: i32,
    eos_id: i32,
    pad_id: i32,
    whitespace_as_suffix: bool,
}

fn read_trainer_spec(bytes: &[u8], spec: &mut TrainerSpec) -> Result<(), String> {
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field.tag {
            3 => spec.model_type = field.number,
            24 => spec.whitespace_as_suffix = field.number != 0,
            41 => spec.bos_id = field.number as i32,
            42 => spec.eos_id = field.number as i32,
            43 => spec.pad_id = field.number as i32,
            _ => {}
        }
    }
    Ok(())
}

// ---- normalization ----------------------------------------------------------------------------------------------

struct Normalizer {
    trie: Vec<u32>,
    replacements: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    whitespace_as_suffix: bool,
}

impl Normalizer {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut normalizer = Normalizer {
            trie: Vec::new(),
            replacements: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            whitespace_as_suffix: false,
        };
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field.tag {
                2 if !field.bytes.is_empty() => normalizer.read_charsmap(field.bytes)?,
                3 => normalizer.add_dummy_prefix = field.number != 0,
                4 => normalizer.remove_extra_whitespaces = field.number != 0,
                5 => normalizer.escape_whitespaces = field.number != 0,
                _ => {}
            }
        }
        Ok(normalizer)
    }

    /// u32 size of the trie in bytes, the trie (a double array of u32), then the replacements, each ended by a zero.
    fn read_charsmap(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = Fields(bytes);
        let size = u32::from_le_bytes(fields.take(4)?.try_into().unwrap_or_default());
        let trie =
            fields.take(u64::from(size)).map_err(|_| "the normalization rules are cut off")?;
        let unit = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap_or_default());
        self.trie = trie.chunks_exact(4).map(unit).collect();
        self.replacements = fields.0.to_vec();
        Ok(())
    }

    /// The longest rule that `text` begins with: bytes it takes and what it becomes.
    fn longest_rule(&self, text: &str) -> Option<(usize, &str)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut position = offset(*self.trie.first()?);
        let mut found = None;
        for (i, byte) in text.bytes().enumerate() {
            position ^= usize::from(byte);
            let Some(&unit) = self.trie.get(position) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            position ^= offset(unit);
            if unit & (1 << 8) != 0 {
                let value = self.trie.get(position).map(|leaf| (leaf & 0x7fff_ffff) as usize);
                found = value.map(|v| (i + 1, v));
            }
        }
        let (length, start) = found?;
        let tail = self.replacements.get(start..)?;
        let end = tail.iter().position(|b| *b == 0)?;
        // A rule that would cut a character in two can only come from a damaged file.
        text.is_char_boundary(length).then_some(())?;
        std::str::from_utf8(&tail[..end]).ok().map(|s| (length, s))
    }

    /// What the beginning of `text` (not empty) becomes: bytes taken, replacement. User-defined pieces stay as they are.
    fn prefix<'a>(
        &'a self,
        text: &'a str,
        user_defined: &dyn Fn(&str) -> usize,
    ) -> (usize, &'a str) {
        let kept = user_defined(text);
        if kept > 0 {
            return (kept, &text[..kept]);
        }
        if let Some(rule) = self.longest_rule(text) {
            return rule;
        }
        let length = text.chars().next().map_or(1, char::len_utf8);
        (length, &text[..length])
    }

    fn normalize(
        &self,
        text: &str,
        dummy_prefix: bool,
        user_defined: &dyn Fn(&str) -> usize,
    ) -> String {
        let space = if self.escape_whitespaces { SPACE } else { " " };
        let mut rest = text;
        while self.remove_extra_whitespaces && !rest.is_empty() {
            let (taken, replacement) = self.prefix(rest, user_defined);
            if replacement != " " {
                break;
            }
            rest = &rest[taken..];
        }
        let mut out = String::with_capacity(rest.len() + 16);
        if rest.is_empty() {
            return out;
        }
        let dummy = dummy_prefix && self.add_dummy_prefix;
        if dummy && !self.whitespace_as_suffix {
            out.push_str(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (taken, mut replacement) = self.prefix(rest, user_defined);
            rest = &rest[taken..];
            if after_space {
                replacement = replacement.trim_start_matches(' ');
            }
            if !replacement.is_empty() {
                for (i, part) in replacement.split(' ').enumerate() {
                    if i > 0 {
                        out.push_str(space);
                    }
                    out.push_str(part);
                }
                after_space = replacement.ends_with(' ');
            }
            after_space &= self.remove_extra_whitespaces;
        }
        while self.remove_extra_whitespaces && out.ends_with(space) {
            out.truncate(out.len() - space.len());
        }
        if dummy && self.whitespace_as_suffix {
            out.push_str(space);
        }
        out
    }
}

// ---- the model --------------------------------------------------------------------------------------------------

impl SentencePiece {
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut spec = TrainerSpec {
            model_type: 1,
            bos_id: 1,
            eos_id: 2,
            pad_id: -1,
            whitespace_as_suffix: false,
        };
        let mut normalizer = Normalizer::read(&[])?;
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field.tag {
                1 => pieces.push(read_piece(field.bytes)?),
                2 => read_trainer_spec(field.bytes, &mut spec)?,
                3 => normalizer = Normalizer::read(field.bytes)?,
                _ => {}
            }
            if pieces.len() > MAX_PIECES {
                return Err("more than 2097152 pieces".into());
            }
        }
        normalizer.whitespace_as_suffix = spec.whitespace_as_suffix;
        let unk_id = pieces
            .iter()
            .position(|p| p.kind == Kind::Unknown)
            .ok_or("there is no unknown piece")?;
        let model = match spec.model_type {
            1 => unigram(&pieces, unk_id)?,
            2 => bpe(&pieces, unk_id)?,
            other => {
                return Err(format!("model type {other} is not supported (Unigram and BPE are)"))
            }
        };
        Ok(SentencePiece {
            model,
            normalizer,
            user_defined: user_defined(&pieces)?,
            byte_ids: byte_ids(&pieces),
            bos_id: spec.bos_id,
            eos_id: spec.eos_id,
            pad_id: spec.pad_id,
            unk_id: unk_id as u32,
            pieces,
        })
    }

    /// Ids of a stretch of text without added tokens. `dummy_prefix`: put a space in front if the model asks for it.
    pub fn encode(&self, text: &str, dummy_prefix: bool, ids: &mut Vec<u32>) -> Result<(), String> {
        let pass = Pass::Raw { special: false };
        let kept = |rest: &str| self.user_defined.longest_prefix(rest).unwrap_or(0);
        let normalized = self.normalizer.normalize(text, dummy_prefix, &kept);
        for piece in self.user_defined.split(&normalized, pass) {
            let segment = &normalized[piece.start..piece.end];
            match piece.id {
                Some(id) => ids.push(id),
                None => self.encode_segment(segment, ids)?,
            }
        }
        Ok(())
    }

    fn encode_segment(&self, segment: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        for token in self.model.tokenize(segment).map_err(|e| e.to_string())? {
            // Also unknown: text that imitates the crate's name of a piece that text can never become.
            let kind = self.pieces.get(token.id as usize).map_or(Kind::Unknown, |p| p.kind);
            match &self.byte_ids {
                _ if matches!(kind, Kind::Normal | Kind::UserDefined) => ids.push(token.id),
                None => ids.push(self.unk_id),
                Some(byte_ids) => {
                    let text = segment.get(token.offsets.0..token.offsets.1).unwrap_or("");
                    ids.extend(text.bytes().map(|b| byte_ids[usize::from(b)]));
                }
            }
        }
        Ok(())
    }

    /// The byte a byte piece stands for.
    pub fn byte(&self, id: u32) -> Option<u8> {
        let piece = self.pieces.get(id as usize)?;
        (piece.kind == Kind::Byte).then(|| byte_of(&piece.text)).flatten()
    }

    /// The text of a piece that is not a byte, with its spaces; `at_start` tells that no text came before, and becomes
    /// false once a leading space has been swallowed or text was given.
    pub fn surface(&self, id: u32, at_start: &mut bool) -> String {
        let Some(piece) = self.pieces.get(id as usize) else { return String::new() };
        let surface = match piece.kind {
            Kind::Control => return String::new(),
            Kind::Unknown => UNKNOWN_SURFACE.to_string(),
            _ => {
                let mut text = piece.text.as_str();
                let removes = self.normalizer.remove_extra_whitespaces;
                if *at_start && (removes || self.normalizer.add_dummy_prefix) {
                    if let Some(rest) = text.strip_prefix(SPACE) {
                        text = rest;
                        // Where blanks are collapsed, all blanks in front go, not only the one that was added.
                        *at_start = removes;
                    }
                }
                text.replace(SPACE, " ")
            }
        };
        if !surface.is_empty() {
            *at_start = false;
        }
        surface
    }

    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.pieces.iter().position(|p| p.text == text).map(|i| i as u32)
    }
}

fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

fn byte_ids(pieces: &[SpPiece]) -> Option<Box<[u32; 256]>> {
    let mut ids = Box::new([u32::MAX; 256]);
    for (i, piece) in pieces.iter().enumerate().filter(|(_, p)| p.kind == Kind::Byte) {
        ids[usize::from(byte_of(&piece.text)?)] = i as u32;
    }
    ids.iter().all(|id| *id != u32::MAX).then_some(ids)
}

fn user_defined(pieces: &[SpPiece]) -> Result<AddedTokens, String> {
    let token = |(i, piece): (usize, &SpPiece)| AddedToken {
        id: i as u32,
        content: piece.text.clone(),
        pattern: piece.text.clone(),
        special: false,
        normalized: false,
        single_word: false,
        lstrip: false,
        rstrip: false,
    };
    AddedTokens::new(
        pieces.iter().enumerate().filter(|(_, p)| p.kind == Kind::UserDefined).map(token).collect(),
    )
}

/// The name of a piece in the crate's vocabulary: text should never hold U+FDD0.
fn crate_name(index: usize, piece: &SpPiece) -> String {
    match piece.kind {
        Kind::Normal | Kind::UserDefined => piece.text.clone(),
        _ => format!("\u{fdd0}{index}"),
    }
}

fn unigram(pieces: &[SpPiece], unk_id: usize) -> Result<ModelWrapper, String> {
    let entry = |(i, p): (usize, &SpPiece)| (crate_name(i, p), f64::from(p.score));
    let vocabulary = pieces.iter().enumerate().map(entry).collect();
    Unigram::from(vocabulary, Some(unk_id), false)
        .map(ModelWrapper::Unigram)
        .map_err(|e| e.to_string())
}

/// SentencePiece merges the pair whose union has the best score; the crate wants all pairs in that order.
fn bpe(pieces: &[SpPiece], unk_id: usize) -> Result<ModelWrapper, String> {
    let names: Vec<String> = pieces.iter().enumerate().map(|(i, p)| crate_name(i, p)).collect();
    let known: HashMap<&str, usize> =
        names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let mut merges: Vec<(usize, (String, String))> = Vec::new();
    for (i, piece) in pieces.iter().enumerate().filter(|(_, p)| p.kind == Kind::Normal) {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                merges.push((i, (left.to_string(), right.to_string())));
            }
        }
    }
    merges.sort_by(|a, b| pieces[b.0].score.total_cmp(&pieces[a.0].score).then(a.0.cmp(&b.0)));
    let vocabulary: ahash::AHashMap<String, u32> =
        names.iter().enumerate().map(|(i, n)| (n.clone(), i as u32)).collect();
    BPE::builder()
        .vocab_and_merges(vocabulary, merges.into_iter().map(|m| m.1).collect())
        .unk_token(names[unk_id].clone())
        .fuse_unk(true)
        .build()
        .map(ModelWrapper::BPE)
        .map_err(|e| e.to_string())
}
