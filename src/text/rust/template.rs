//! Chat templates with the behaviour of transformers: Jinja2 with `trim_blocks` and `lstrip_blocks`, loop controls,
//! `raise_exception`, `strftime_now`, transformers' `tojson`, Python's methods, and tolerance for `{% generation %}`.

use std::sync::OnceLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value as Json};

use crate::filters::{self, KEEP, PYTHON_CONTAINERS};
use crate::python;

/// One unit of fuel is an instruction or 64 bytes of data, so this bounds time (a second) and memory
/// (256 MiB). A chat of a thousand long messages needs a tenth of it.
const FUEL: u64 = 4_000_000;
const RECURSION_LIMIT: usize = 100;
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
const TEMPLATE: &str = "chat_template";

/// A named template, compiled when it is first rendered: most runs of the program never do.
pub struct Template {
    pub name: String,
    /// The file it came from, for messages.
    pub file: String,
    source: String,
    compiled: OnceLock<Result<Environment<'static>, String>>,
}

/// What `apply_chat_template` hands to a template.
#[derive(Clone, Default)]
pub struct RenderInput {
    pub messages: Json,
    pub tools: Json,
    /// `None` leaves the variable undefined.
    pub add_generation_prompt: Option<bool>,
    /// Further variables (`enable_thinking`, `documents`, ...), and the special tokens by name.
    pub variables: Map<String, Json>,
    /// Lists and dictionaries print as in Python; otherwise as JSON.
    pub python_containers: bool,
    /// Seconds since 1970 for `strftime_now`.
    pub now: i64,
    /// A character that `tojson` must not escape (see chat.rs).
    pub keep: Option<char>,
}

impl Template {
    pub fn new(name: &str, file: &str, source: &str) -> Self {
        Template {
            name: name.into(),
            file: file.into(),
            source: source.into(),
            compiled: OnceLock::new(),
        }
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn render(&self, input: &RenderInput) -> Result<String, String> {
        let compiled = self.compiled.get_or_init(|| compile(&self.source));
        let environment = compiled.as_ref().map_err(|e| e.clone())?;
        let template = environment.get_template(TEMPLATE).map_err(describe)?;
        template.render(context(input)).map_err(describe)
    }
}

fn describe(error: Error) -> String {
    match error.kind() {
        // raise_exception: the template's own words, for the user.
        ErrorKind::InvalidOperation if error.detail().is_some_and(|d| d.starts_with(RAISED)) => {
            error.detail().unwrap_or_default()[RAISED.len()..].to_string()
        }
        ErrorKind::OutOfFuel => "the template does too much work (an endless loop?)".to_string(),
        _ => match error.line() {
            Some(line) => format!("{error:#} (template line {line})"),
            None => format!("{error:#}"),
        },
    }
}

const RAISED: &str = "raised by the template: ";

fn compile(source: &str) -> Result<Environment<'static>, String> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err("the template is larger than 1 MiB".into());
    }
    let mut environment = Environment::new();
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(describe)?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|state, value, method, args| {
        python::call_method(value, method, args).unwrap_or_else(|| {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        })
    });
    filters::add(&mut environment);
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment.add_template_owned(TEMPLATE, without_generation_tags(source)).map_err(describe)?;
    Ok(environment)
}

fn context(input: &RenderInput) -> Value {
    let mut variables: Vec<(String, Value)> = Vec::new();
    for (name, value) in &input.variables {
        variables.push((name.clone(), to_value(value)));
    }
    variables.push(("messages".into(), to_value(&with_reasoning_aliases(&input.messages))));
    variables.push(("tools".into(), to_value(&input.tools)));
    if !input.variables.contains_key("documents") {
        variables.push(("documents".into(), Value::from(())));
    }
    if let Some(add) = input.add_generation_prompt {
        variables.push(("add_generation_prompt".into(), Value::from(add)));
    }
    if let Some(c) = input.keep {
        variables.push((KEEP.into(), Value::from(c.to_string())));
    }
    variables.push((PYTHON_CONTAINERS.into(), Value::from(input.python_containers)));
    let now = input.now;
    let strftime_now = Value::from_function(move |format: String| strftime(now, &format));
    variables.push(("strftime_now".into(), strftime_now));
    Value::from_pairs(variables)
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (_, Some(u)) => Value::from(u),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => Value::from(items.iter().map(to_value).collect::<Vec<Value>>()),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(k, v)| (k.as_str(), to_value(v))))
        }
    }
}

/// A message's reasoning goes by three names; as in transformers, templates may read any of them.
fn with_reasoning_aliases(messages: &Json) -> Json {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
        let names = ["reasoning_content", "thinking", "reasoning"];
        let reasoning =
            names.iter().find_map(|n| message.get(*n).filter(|v| !v.is_null()).cloned());
        let Some(reasoning) = reasoning else { continue };
        // The order is that of Python's {"thinking": r, **message, "reasoning_content": r}.
        let mut fields = Map::from_iter([("thinking".to_string(), reasoning.clone())]);
        fields.extend(std::mem::take(message));
        fields.insert("reasoning_content".into(), reasoning);
        *message = fields;
    }
    messages
}

/// `datetime.now().strftime(format)`: local time, C locale.
fn strftime(now: i64, format: &str) -> Result<String, Error> {
    let invalid = |what: &'static str| Error::new(ErrorKind::InvalidOperation, what);
    if format.is_empty() {
        return Ok(String::new());
    }
    if format.len() > 1000 {
        return Err(invalid("strftime_now: the format is too long"));
    }
    // A trailing mark tells an empty result from a buffer that is too small: strftime returns 0 for both.
    let format = std::ffi::CString::new(format!("{format}."))
        .map_err(|_| invalid("strftime_now: the format holds a zero byte"))?;
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: `tm` is plain data that localtime_r fills; the pointers outlive the calls; the buffer's size is given.
    let written = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut tm).is_null() {
            return Err(invalid("strftime_now: no such time"));
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &tm)
    };
    if written == 0 {
        return Err(invalid("strftime_now: the result is too long"));
    }
    buffer.truncate(written - 1);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// `{% generation %}` marks what the assistant said, for training; here it is an empty scope: `{% with %}`.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let body = tag.trim_start_matches(['-', '+']).trim_start();
        for (name, replacement) in [("generation", "with"), ("endgeneration", "endwith")] {
            let Some(after) = body.strip_prefix(name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..tag.len() - body.len()]);
                out.push_str(replacement);
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Which of several templates transformers would take: by name, else `tool_use` when there are tools, else `default`.
pub fn choose<'a>(
    templates: &'a [Template],
    name: Option<&str>,
    has_tools: bool,
) -> Result<&'a Template, String> {
    let find = |wanted: &str| templates.iter().find(|t| t.name == wanted);
    if let Some(name) = name {
        let known = || templates.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
        return find(name).ok_or_else(|| {
            format!("there is no chat template named '{name}' (there are: {})", known())
        });
    }
    let tool_use = if has_tools { find("tool_use") } else { None };
    tool_use
        .or_else(|| find("default"))
        .ok_or_else(|| "the model has no default chat template".to_string())
}
