//! A chat as token ids, such that text which a user wrote never becomes a special token.
//!
//! Before rendering, strings of the messages, tools and documents get a sentinel (a character that occurs nowhere in
//! the chat) put into every place where they could take part in a special token. Special tokens are found in the
//! rendered text with the sentinels still there; then the sentinels are taken out. A chat without such places gets no
//! sentinel, and its ids are those of the rendered text.
//!
//! A template may edit what it is given (`replace`, `split`) and so join what no single string holds. Therefore the
//! chat is rendered once more with a sentinel behind *every* character that begins a special token; if the special
//! tokens of the two differ, the second rendering, which no editing can get around, is the one taken.

use std::collections::HashSet;

use aho_corasick::AhoCorasick;
use serde_json::{Map, Value as Json};

use crate::template::{RenderInput, Template};
use crate::tokenizer::{Marked, Text};

/// Noncharacters: valid in UTF-8, never in honest text. One that occurs in the chat is passed over.
const SENTINELS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// The variable with documents to answer from: user text, unlike every other variable.
const DOCUMENTS: &str = "documents";

/// Where strings can take part in a special token.
pub struct Guard {
    whole: AhoCorasick,
    first_characters: HashSet<char>,
    /// Proper beginnings and ends of special tokens.
    beginnings: HashSet<String>,
    ends: HashSet<String>,
    tokens: Vec<String>,
    longest: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Care {
    /// Occurrences of special tokens, and parts of one at the two ends of a string.
    Occurrences,
    /// Every character that begins a special token, and the front of every string that could continue one.
    EveryBeginning,
}

impl Guard {
    pub fn new<'a>(special: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let tokens: Vec<String> = special.map(str::to_string).collect();
        let mut guard = Guard {
            whole: AhoCorasick::new(&tokens).map_err(|e| e.to_string())?,
            first_characters: tokens.iter().filter_map(|t| t.chars().next()).collect(),
            beginnings: HashSet::new(),
            ends: HashSet::new(),
            longest: tokens.iter().map(String::len).max().unwrap_or(0),
            tokens: Vec::new(),
        };
        for token in &tokens {
            for (at, _) in token.char_indices().skip(1) {
                guard.beginnings.insert(token[..at].to_string());
                guard.ends.insert(token[at..].to_string());
            }
        }
        guard.tokens = tokens;
        Ok(guard)
    }

    /// Byte positions in `s` at which a sentinel goes; sorted, without repetition.
    fn places(&self, s: &str, care: Care, is_name: bool) -> Vec<usize> {
        let behind = |at: usize| at + s[at..].chars().next().map_or(0, char::len_utf8);
        let mut places: Vec<usize> = Vec::new();
        if care == Care::EveryBeginning {
            let starts = s.char_indices().filter(|(_, c)| self.first_characters.contains(c));
            places.extend(starts.map(|(at, _)| behind(at)));
        } else {
            places.extend(self.whole.find_overlapping_iter(s).map(|m| behind(m.start())));
            let tail = s.len().saturating_sub(self.longest);
            let tails = s.char_indices().map(|(at, _)| at).skip_while(|at| *at < tail);
            places.extend(tails.filter(|at| self.beginnings.contains(&s[*at..])).map(behind));
        }
        if !is_name && self.continues_token(s) {
            places.push(0);
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// False only if no string of the chat has a character that begins a special token.
    fn finds_beginning(&self, input: &RenderInput) -> bool {
        let has = |json: &Json| json.to_string().contains(|c| self.first_characters.contains(&c));
        has(&input.messages) || has(&input.tools) || input.variables.get(DOCUMENTS).is_some_and(has)
    }

    /// True if `s` could continue a special token that the template's own text began. A plain word cannot: only a
    /// template that builds tokens from words on purpose, as from roles, would make it one.
    fn continues_token(&self, s: &str) -> bool {
        let is_plain = |part: &str| part.chars().all(|c| c.is_alphanumeric() || c == '_');
        let heads = s
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= self.longest);
        let ends_token =
            heads.map(|end| &s[..end]).any(|head| self.ends.contains(head) && !is_plain(head));
        let is_inside =
            s.len() < self.longest && !is_plain(s) && self.tokens.iter().any(|t| t.contains(s));
        ends_token || is_inside
    }
}

/// Puts sentinels into user text.
struct Marker<'a> {
    guard: &'a Guard,
    sentinel: char,
    care: Care,
    count: usize,
}

impl Marker<'_> {
    fn text(&mut self, s: &str, is_name: bool) -> String {
        let places = self.guard.places(s, self.care, is_name);
        self.count += places.len();
        let mut out = String::with_capacity(s.len() + 4 * places.len());
        let mut done = 0;
        for place in places {
            out.push_str(&s[done..place]);
            out.push(self.sentinel);
            done = place;
        }
        out.push_str(&s[done..]);
        out
    }

    /// `is_name`: the string selects something in the template (a key, a type) more often than it is printed.
    fn value(&mut self, value: &mut Json, is_name: bool) {
        match value {
            Json::String(s) => *s = self.text(s, is_name),
            Json::Array(items) => items.iter_mut().for_each(|item| self.value(item, is_name)),
            Json::Object(fields) => self.fields(fields, false),
            _ => {}
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Json>, is_message: bool) {
        for (key, mut value) in std::mem::take(fields) {
            if !(is_message && key == "role") {
                self.value(&mut value, key == "type");
            }
            fields.insert(self.text(&key, true), value);
        }
    }

    fn input(&mut self, input: &mut RenderInput) {
        for message in input.messages.as_array_mut().into_iter().flatten() {
            match message {
                Json::Object(fields) => self.fields(fields, true),
                other => self.value(other, false),
            }
        }
        self.value(&mut input.tools, false);
        if let Some(documents) = input.variables.get_mut(DOCUMENTS) {
            self.value(documents, false);
        }
        input.keep = Some(self.sentinel);
    }
}

/// Roles are keywords from which templates build special tokens: a role with other characters could build any.
fn check_roles(messages: &Json) -> Result<(), String> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    for message in messages.as_array().into_iter().flatten() {
        match message.get("role") {
            None => {}
            Some(Json::String(role)) if role.chars().all(is_word) => {}
            Some(role) => {
                return Err(format!("a message has the role {role}, which is not a word"))
            }
        }
    }
    Ok(())
}

fn free_sentinel(template: &Template, input: &RenderInput) -> Result<char, String> {
    let mut all =
        vec![template.source().to_string(), input.messages.to_string(), input.tools.to_string()];
    all.extend(input.variables.values().map(Json::to_string));
    let is_free = |c: &char| !all.iter().any(|text| text.contains(*c));
    SENTINELS
        .into_iter()
        .find(is_free)
        .ok_or_else(|| "the chat uses every Unicode noncharacter".to_string())
}

/// `input` without the named special tokens, which are added here.
pub fn encode_chat(
    text: &Text,
    template: &Template,
    mut input: RenderInput,
) -> Result<Vec<u32>, String> {
    check_roles(&input.messages)?;
    text.add_named_tokens(&mut input);
    let guard = text.guard()?;
    let sentinel = free_sentinel(template, &input)?;
    let render = |care: Care| -> Result<(String, usize), String> {
        let mut marked = input.clone();
        let mut marker = Marker { guard, sentinel, care, count: 0 };
        marker.input(&mut marked);
        // The template's own message may quote marked text.
        let rendered = template.render(&marked).map_err(|e| e.replace(sentinel, ""))?;
        Ok((rendered, marker.count))
    };
    let (mut rendered, count) = render(Care::Occurrences)?;
    let mut is_marked = count > 0;
    if guard.finds_beginning(&input) {
        let (strict, _) = render(Care::EveryBeginning)?;
        if text.special_ids(&rendered) != text.special_ids(&strict) {
            (rendered, is_marked) = (strict, true);
        }
    }
    text.encode_marked(&Marked { text: &rendered, sentinel: is_marked.then_some(sentinel) })
}
