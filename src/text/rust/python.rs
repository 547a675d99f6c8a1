//! What Python's `json.dumps`, `repr` and string methods give, for values inside a chat template: templates are
//! written against Jinja2 and models are trained on what Python printed.

use std::fmt::Write;

use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::filters;

/// Containers nested deeper than this are refused; the stack of a server's thread is small.
const MAX_DEPTH: usize = 200;

/// A template chooses separators and indentation, so no result is bounded by the size of what it is made of.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// `repr(x)` of a Python float: the shortest digits that read back, exponent form from 1e16 and below 1e-4.
pub fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{x}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

/// Integers print as minijinja prints them; floats as Python does.
fn number_text(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(x) if !value.is_integer() => float_repr(x),
        _ => value.to_string(),
    }
}

// ---- json.dumps -------------------------------------------------------------------------------------------------

/// The arguments of `json.dumps` that templates use.
pub struct JsonStyle {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
    /// A character that is never escaped (see chat.rs).
    keep: Option<char>,
}

impl Default for JsonStyle {
    fn default() -> Self {
        JsonStyle {
            ensure_ascii: false,
            indent: None,
            item_separator: ", ".into(),
            key_separator: ": ".into(),
            sort_keys: false,
            keep: None,
        }
    }
}

impl JsonStyle {
    pub fn from_args(args: &[Value], kwargs: &Kwargs, keep: Option<char>) -> Result<Self, Error> {
        let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
            let named: Option<Value> = kwargs.get(name)?;
            Ok(args.get(index).cloned().or(named).filter(|v| !v.is_none()))
        };
        let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
        let indent = match argument(1, "indent")? {
            None => None,
            Some(v) => Some(match v.as_str() {
                Some(s) => s.to_string(),
                None => {
                    let n = i64::try_from(v)
                        .map_err(|_| invalid("tojson: indent must be a number or a string"))?;
                    " ".repeat(n.clamp(0, 64) as usize)
                }
            }),
        };
        let (mut item, key) = (", ".to_string(), ": ".to_string());
        if indent.is_some() {
            item = ",".to_string();
        }
        let (item_separator, key_separator) = match argument(2, "separators")? {
            None => (item, key),
            Some(v) => {
                let parts: Vec<Value> = v.try_iter()?.collect();
                match parts.as_slice() {
                    [a, b] => (a.to_string(), b.to_string()),
                    _ => return Err(invalid("tojson: separators must be a pair")),
                }
            }
        };
        let sort_keys = argument(3, "sort_keys")?.is_some_and(|v| v.is_true());
        kwargs.assert_all_used()?;
        Ok(JsonStyle { ensure_ascii, indent, item_separator, key_separator, sort_keys, keep })
    }
}

pub fn to_json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, style, 0)?;
    Ok(out)
}

fn write_json(
    out: &mut String,
    value: &Value,
    style: &JsonStyle,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("tojson: the value is nested too deeply"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&json_number(value)),
        ValueKind::String => write_json_string(out, value.as_str().unwrap_or(""), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_json_items(out, ('[', ']'), items.len(), style, depth, |out, i| {
                write_json(out, &items[i], style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                pairs.push((json_key(&key)?, item));
            }
            if style.sort_keys {
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
            }
            write_json_items(out, ('{', '}'), pairs.len(), style, depth, |out, i| {
                write_json_string(out, &pairs[i].0, style);
                out.push_str(&style.key_separator);
                write_json(out, &pairs[i].1, style, depth + 1)
            })?;
        }
        other => return Err(invalid(format!("Object of type {other} is not JSON serializable"))),
    }
    Ok(())
}

fn write_json_items(
    out: &mut String,
    brackets: (char, char),
    count: usize,
    style: &JsonStyle,
    depth: usize,
    mut write_item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(brackets.0);
    for i in 0..count {
        if out.len() > MAX_TEXT_BYTES {
            return Err(invalid("tojson: the result is too large"));
        }
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(out, style, depth + 1);
        write_item(out, i)?;
    }
    if count > 0 {
        new_line(out, style, depth);
    }
    out.push(brackets.1);
    Ok(())
}

fn new_line(out: &mut String, style: &JsonStyle, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn json_number(value: &Value) -> String {
    match number_text(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.into(),
    }
}

fn json_key(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or("").to_string(),
        ValueKind::None => "null".into(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
        ValueKind::Number => json_number(key),
        other => {
            return Err(invalid(format!("keys must be str, int, float, bool or None, not {other}")))
        }
    })
}

fn write_json_string(out: &mut String, text: &str, style: &JsonStyle) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => push_u16(out, c as u16),
            c if style.ensure_ascii && !(' '..='~').contains(&c) && style.keep != Some(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    push_u16(out, *unit);
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_u16(out: &mut String, unit: u16) {
    let _ = write!(out, "\\u{unit:04x}");
}

// ---- str() and repr() -------------------------------------------------------------------------------------------

/// `str(x)`: strings as they are, everything else as `repr` prints it; undefined prints nothing.
pub fn to_text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or("").to_string()),
        ValueKind::Undefined => Ok(String::new()),
        _ => {
            let mut out = String::new();
            write_repr(&mut out, value, 0)?;
            Ok(out)
        }
    }
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("the value is nested too deeply to print"));
    }
    match value.kind() {
        ValueKind::Number => out.push_str(&number_text(value)),
        ValueKind::String => write_string_repr(out, value.as_str().unwrap_or("")),
        ValueKind::Seq => {
            let is_tuple = value.is_tuple();
            out.push(if is_tuple { '(' } else { '[' });
            for (i, item) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(out, &item, depth + 1)?;
            }
            if is_tuple && value.len() == Some(1) {
                out.push(',');
            }
            out.push(if is_tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || ('\u{7f}'..='\u{a0}').contains(&c) || c == '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

// ---- methods that minijinja-contrib's pycompat does not have ----------------------------------------------------

/// `None` when the method is not one of these.
pub fn call_method(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str()?, method, args),
        ValueKind::Map => match method {
            "copy" => Some(Ok(value.clone())),
            "items" => Some(filters::items(value)),
            _ => None,
        },
        ValueKind::Seq => match method {
            "copy" => Some(Ok(value.clone())),
            "index" => Some(sequence_index(value, args)),
            _ => None,
        },
        _ => None,
    }
}

fn sequence_index(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let wanted = args.first().ok_or_else(|| invalid("index() needs an argument"))?;
    let found = value.try_iter()?.position(|item| item == *wanted);
    found.map(Value::from).ok_or_else(|| invalid("index(): the item is not in the list"))
}

fn text_argument<'a>(args: &'a [Value], index: usize, method: &str) -> Result<&'a str, Error> {
    let text = args.get(index).and_then(|v| v.as_str());
    text.ok_or_else(|| invalid(format!("{method}() needs a string")))
}

fn string_method(s: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let done = |text: String| Some(Ok(Value::from(text)));
    match method {
        "title" => done(title(s)),
        "swapcase" => done(s.chars().flat_map(swap_case).collect()),
        "removeprefix" => {
            Some(text_argument(args, 0, method).map(|p| s.strip_prefix(p).unwrap_or(s).into()))
        }
        "removesuffix" => {
            Some(text_argument(args, 0, method).map(|p| s.strip_suffix(p).unwrap_or(s).into()))
        }
        "partition" | "rpartition" => Some(partition(s, method, args)),
        "rsplit" => Some(rsplit(s, args)),
        "index" | "rindex" => Some(find_or_fail(s, method, args)),
        "zfill" | "ljust" | "rjust" | "center" => Some(pad(s, method, args)),
        "isdecimal" => Some(Ok((!s.is_empty() && s.chars().all(char::is_numeric)).into())),
        _ => None,
    }
}

/// Every letter that does not follow a letter is a capital: `It'S`.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut after_letter = false;
    for c in s.chars() {
        match after_letter {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        after_letter = c.is_alphabetic();
    }
    out
}

fn swap_case(c: char) -> Vec<char> {
    if c.is_uppercase() {
        c.to_lowercase().collect()
    } else {
        c.to_uppercase().collect()
    }
}

fn partition(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let separator = text_argument(args, 0, method)?;
    if separator.is_empty() {
        return Err(invalid("empty separator"));
    }
    let right = method == "rpartition";
    let halves = if right { s.rsplit_once(separator) } else { s.split_once(separator) };
    let parts = match (halves, right) {
        (Some((a, b)), _) => [a, separator, b],
        (None, false) => [s, "", ""],
        (None, true) => ["", "", s],
    };
    Ok(Value::from(Tuple::new(parts.into_iter().map(Value::from).collect())))
}

fn rsplit(s: &str, args: &[Value]) -> Result<Value, Error> {
    let limit = match args.get(1) {
        Some(v) => i64::try_from(v.clone())?,
        None => -1,
    };
    let limit = if limit < 0 { usize::MAX } else { limit as usize };
    let mut parts: Vec<&str> = match args.first().filter(|v| !v.is_none()) {
        None => return Ok(rsplit_whitespace(s, limit).into_iter().map(Value::from).collect()),
        Some(v) => {
            let separator =
                v.as_str().filter(|x| !x.is_empty()).ok_or_else(|| invalid("empty separator"))?;
            s.rsplitn(limit.saturating_add(1), separator).collect()
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn rsplit_whitespace(s: &str, limit: usize) -> Vec<&str> {
    let mut rest = s.trim_end();
    let mut parts = Vec::new();
    while parts.len() < limit {
        match rest.rfind(char::is_whitespace) {
            Some(at) => {
                let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
                parts.push(&rest[after..]);
                rest = rest[..at].trim_end();
            }
            None => break,
        }
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts.reverse();
    parts
}

fn find_or_fail(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let wanted = text_argument(args, 0, method)?;
    let found = if method == "index" { s.find(wanted) } else { s.rfind(wanted) };
    let at = found.ok_or_else(|| invalid("substring not found"))?;
    Ok(Value::from(s[..at].chars().count()))
}

pub fn pad(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let width =
        args.first().cloned().ok_or_else(|| invalid(format!("{method}() needs a width")))?;
    let width = i64::try_from(width)?.clamp(0, 1 << 16) as usize;
    let default = if method == "zfill" { '0' } else { ' ' };
    let fill =
        args.get(1).and_then(|v| v.as_str()).and_then(|f| f.chars().next()).unwrap_or(default);
    let length = s.chars().count();
    let missing = width.saturating_sub(length);
    let run = |n: usize| fill.to_string().repeat(n);
    Ok(Value::from(match method {
        "ljust" => format!("{s}{}", run(missing)),
        "rjust" => format!("{}{s}", run(missing)),
        "center" => {
            // Python puts the odd blank on the left when the width is odd.
            let left = missing / 2 + (missing & width & 1);
            format!("{}{s}{}", run(left), run(missing - left))
        }
        _ => {
            let (sign, digits) = match s.strip_prefix(['-', '+']) {
                Some(digits) => (&s[..1], digits),
                None => ("", s),
            };
            format!("{sign}{}{digits}", run(missing))
        }
    }))
}
