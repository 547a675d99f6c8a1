//! Jinja2's filters and tests where minijinja has none or another behaviour.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::python;

/// The variable that carries `RenderInput::keep`, and the one that says how containers print. No template can name
/// them.
pub const KEEP: &str = "keep character";
pub const PYTHON_CONTAINERS: &str = "python containers";

/// A template chooses widths, so they need a bound of their own.
const MAX_WIDTH: i64 = 1 << 16;

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

pub fn add(environment: &mut Environment<'static>) {
    environment.set_formatter(|output, state, value| {
        output.write_str(&print(state, value)?).map_err(Error::from)
    });
    environment.add_filter("string", |state: &State, value: Value| print(state, &value));
    environment.add_filter("tojson", tojson);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("items", |value: Value| items(&value));
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", |text: String| {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()
    });
    environment.add_filter("center", |value: Value, width: Option<i64>| {
        let text = python::to_text(&value)?;
        python::pad(&text, "center", &[Value::from(width.unwrap_or(80))])
    });
    environment.add_filter("urlencode", urlencode);
    environment.add_test("sequence", |value: Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
}

/// What `{{ value }}` prints.
fn print(state: &State, value: &Value) -> Result<String, Error> {
    let is_container = matches!(value.kind(), ValueKind::Seq | ValueKind::Map);
    if is_container && state.lookup(PYTHON_CONTAINERS).is_some_and(|v| !v.is_true()) {
        return python::to_json(value, &python::JsonStyle::default());
    }
    python::to_text(value)
}

fn tojson(state: &State, value: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let keep = state.lookup(KEEP).and_then(|v| v.as_str().and_then(|s| s.chars().next()));
    python::to_json(&value, &python::JsonStyle::from_args(&args, &kwargs, keep)?)
}

/// The pairs of a dictionary, as Python's tuples.
pub fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if value.kind() != ValueKind::Map {
        return Err(invalid("items() needs a dictionary"));
    }
    let pair = |key: Value| {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::new(vec![key, item])))
    };
    let pairs: Result<Vec<Value>, Error> = value.try_iter()?.map(pair).collect();
    Ok(Value::from(pairs?))
}

fn indent(
    text: String,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = width.or(kwargs.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let indentation = match width.as_str() {
        Some(indentation) => indentation.to_string(),
        None => " ".repeat(i64::try_from(width)?.clamp(0, MAX_WIDTH) as usize),
    };
    let lines = text.split('\n').count();
    if lines.saturating_mul(indentation.len()) > python::MAX_TEXT_BYTES {
        return Err(invalid("indent: the result is too large"));
    }
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// `int(value)`, or the default where Python would raise.
fn int(value: Value, default: Option<Value>, base: Option<u32>) -> Value {
    let default = default.unwrap_or_else(|| Value::from(0));
    let base = base.unwrap_or(10);
    let Some(text) = value.as_str() else {
        return match f64::try_from(value.clone()) {
            _ if value.is_integer() => value,
            Ok(x) if x.is_finite() => Value::from(x as i64),
            _ if value.kind() == ValueKind::Bool => Value::from(value.is_true() as i64),
            _ => default,
        };
    };
    let text = text.trim().replace('_', "");
    let digits = match base {
        16 => text.trim_start_matches("0x").trim_start_matches("0X"),
        8 => text.trim_start_matches("0o"),
        2 => text.trim_start_matches("0b"),
        _ => &text,
    };
    let whole =
        if (2..=36).contains(&base) { i64::from_str_radix(digits, base).ok() } else { None };
    let cut = || text.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x as i64);
    whole.or_else(cut).map_or(default, Value::from)
}

fn float(value: Value, default: Option<Value>) -> Value {
    let number = match value.as_str() {
        Some(text) => text.trim().parse::<f64>().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(value.is_true())),
        None => f64::try_from(value).ok(),
    };
    number.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from)
}

fn truncate(
    text: String,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<String>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let length = length.or(kwargs.get("length")?).unwrap_or(255);
    let killwords = killwords.or(kwargs.get("killwords")?).unwrap_or(false);
    let end = end.or(kwargs.get("end")?).unwrap_or_else(|| "...".into());
    let leeway: usize = kwargs.get::<Option<usize>>("leeway")?.unwrap_or(5);
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = if killwords { &kept } else { kept.rsplit_once(' ').map_or(kept.as_str(), |p| p.0) };
    Ok(format!("{kept}{end}"))
}

fn urlencode(value: Value) -> Result<String, Error> {
    let text = python::to_text(&value)?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Ok(out)
}
