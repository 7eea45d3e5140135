//! `accessLogEncoding: JSON`: a JSON object as format, compiled to the same flat list as a text.
//!
//! A string that is exactly one operator becomes a typed value (number, string, `null` when unset); a string with text
//! around its operators stays a string, in which an unset value is `-`.

use serde_json::Value;

use super::format::{Compiler, FormatError, Place, Token, tokens};

/// Compiles `object` and a line end.
pub(super) fn compile(object: &Value, compiler: &mut Compiler) -> Result<(), FormatError> {
    if !object.is_object() {
        return Err(FormatError {
            offset: 0,
            message: "accessLogFormat must be a JSON object".into(),
        });
    }
    value(object, compiler)?;
    compiler.literal("\n");
    Ok(())
}

fn value(value_or_format: &Value, compiler: &mut Compiler) -> Result<(), FormatError> {
    match value_or_format {
        Value::Object(fields) => {
            compiler.literal("{");
            for (index, (key, field)) in fields.iter().enumerate() {
                if index > 0 {
                    compiler.literal(",");
                }
                compiler.literal(&Value::from(key.as_str()).to_string());
                compiler.literal(":");
                value(field, compiler)?;
            }
            compiler.literal("}");
        }
        Value::Array(items) => {
            compiler.literal("[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    compiler.literal(",");
                }
                value(item, compiler)?;
            }
            compiler.literal("]");
        }
        Value::String(text) => string(text, compiler)?,
        constant => compiler.literal(&constant.to_string()),
    }
    Ok(())
}

fn string(text: &str, compiler: &mut Compiler) -> Result<(), FormatError> {
    let parsed: Vec<Token<'_>> = tokens(text).collect::<Result<_, _>>()?;
    if let [Token::Operator(call)] = parsed.as_slice() {
        return compiler.field(call, Place::TypedValue);
    }
    compiler.literal("\"");
    for token in &parsed {
        match token {
            Token::Text(literal) => {
                let mut escaped = Vec::new();
                super::escape::json(literal.as_bytes(), &mut escaped);
                compiler.literal(&String::from_utf8_lossy(&escaped));
            }
            Token::Operator(call) => compiler.field(call, Place::Quoted)?,
        }
    }
    compiler.literal("\"");
    Ok(())
}
